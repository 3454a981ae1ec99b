"""What attribution asks of a model, and how a `HookedModel` gives it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.core.architecture import Architecture
from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention, Replace
from mechxai.core.metric import Metric
from mechxai.core.shapes import PerPrompt, Tokens
from mechxai.core.site import Site
from mechxai.engine.chunk import metric_values
from mechxai.engine.execution import Execution
from mechxai.engine.run import run_sweep
from mechxai.engine.sweep import Cell, Sweep, run_tokens
from mechxai.model.backends.base import frozen
from mechxai.model.backends.from_embeddings import final_streams, mean_embedding, token_embeddings
from mechxai.model.hooked_model import HookedModel
from mechxai.model.text import TextCodec

Embeddings = Float[Tensor, "batch pos d_model"]
_EMBED = Site("embed")


@dataclass(frozen=True)
class Removals:
    """Scores with some tokens taken away.

    Attributes:
        scores: ``[cell, batch]``, float64, on the CPU.
        worked: forward passes of one prompt that they took, less what was saved.
    """

    scores: Float[Tensor, "cell batch"]
    worked: float


@runtime_checkable
class AttributionModel(Protocol):
    """A model as attribution sees it."""

    @property
    def inside(self) -> bool:
        """Whether there are embeddings, gradients and attention to look at; else it takes nothing but text."""
        ...

    @property
    def identity(self) -> str:
        """What decides its numbers, as text."""
        ...

    @property
    def text(self) -> TextCodec:
        """Its tokenizer and habits."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        ...

    @property
    def architecture(self) -> Architecture:
        """Its sizes."""
        ...

    @property
    def n_outputs(self) -> int:
        """How many answers there are: tokens of the vocabulary, or classes."""
        ...

    def answer_text(self, answer: Sequence[int]) -> str:
        """An answer as text: its tokens put together, or the name of an output."""
        ...

    def embeddings(self, tokens: Tokens) -> Embeddings:
        """The token embeddings."""
        ...

    def mean_embedding(self) -> Float[Tensor, " d_model"]:
        """Their mean over the vocabulary."""
        ...

    def score(self, metric: Metric, batch: ContrastBatch, embeddings: Embeddings) -> PerPrompt:
        """The metric on the clean prompts with these embeddings in place of their tokens'; differentiable in them."""
        ...

    def without(
        self,
        metric: Metric,
        batch: ContrastBatch,
        embeddings: Embeddings,
        *,
        baseline: Embeddings,
        absent: Bool[Tensor, "cell batch ..."],
        execution: Execution,
    ) -> Removals:
        """The metric with the baseline's embeddings where ``absent``, ``[cell, batch, pos]`` or with ``d_model``."""
        ...

    def patterns(
        self, batch: ContrastBatch, embeddings: Embeddings, layers: Sequence[int]
    ) -> Float[Tensor, "layer batch head dest src"]:
        """Attention patterns on the clean prompts with these embeddings."""
        ...


class PassesOn:
    """What stands for a model and gives the model's own text, device and sizes.

    Attributes:
        model: the model.
    """

    model: Any

    @property
    def text(self) -> TextCodec:
        """The model's."""
        return self.model.text

    @property
    def device(self) -> torch.device:
        """The model's."""
        return self.model.device

    @property
    def architecture(self) -> Architecture:
        """The model's."""
        return self.model.architecture


class NamedOutputsAdapter(PassesOn):
    """What stands for a model with named outputs."""

    @property
    def n_outputs(self) -> int:
        """How many outputs there are."""
        return len(self.model.outputs)

    def answer_text(self, answer: Sequence[int]) -> str:
        """The output's name."""
        return self.model.outputs[answer[0]]


@dataclass(frozen=True)
class HookedAdapter(PassesOn):
    """A `HookedModel` explained; what is taken away is taken away through the engine."""

    model: HookedModel
    inside: bool = True

    @property
    def identity(self) -> str:
        """Weights, backend, processing and dtype."""
        info = self.model.info()
        return repr([info[name] for name in ("weight_hash", "backend", "processing", "dtype")])

    @property
    def n_outputs(self) -> int:
        """The vocabulary."""
        return self.model.architecture.d_vocab

    def answer_text(self, answer: Sequence[int]) -> str:
        """Its tokens put together."""
        return "".join(self.model.text.strings(answer))

    def embeddings(self, tokens: Tokens) -> Embeddings:
        """What stands at ``hook_embed``."""
        return token_embeddings(self.model, tokens)

    def mean_embedding(self) -> Float[Tensor, " d_model"]:
        """Over the vocabulary, one pass through the embedding."""
        return mean_embedding(self.model)

    def score(self, metric: Metric, batch: ContrastBatch, embeddings: Embeddings) -> PerPrompt:
        """Only the logits that the metric reads are made; parameters take no gradient."""
        tokens, lengths = run_tokens(batch, "clean", metric)
        everyone = torch.arange(len(batch), device=self.device)
        with frozen(self.model.backend):
            final = final_streams(
                self.model, tokens, embeddings, where=batch.mask, lengths=lengths, at=metric.positions(batch)
            )
            return metric_values(self.model, metric, batch, final=final, prompts=everyone)

    def without(
        self,
        metric: Metric,
        batch: ContrastBatch,
        embeddings: Embeddings,
        *,
        baseline: Embeddings,
        absent: Bool[Tensor, "cell batch ..."],
        execution: Execution,
    ) -> Removals:
        """One sweep: a cell per row of ``absent``, run from the first token it takes away."""
        cells: list[Cell] = [(Intervention(_EMBED, Replace(baseline, where)),) for where in absent]
        sweep = Sweep(batch, "clean", cells, metric, self._moved(batch, embeddings))
        outcome = run_sweep(self.model, sweep, execution, label="tokens taken away")
        return Removals(outcome.values, outcome.cost["forward_passes"])

    def patterns(
        self, batch: ContrastBatch, embeddings: Embeddings, layers: Sequence[int]
    ) -> Float[Tensor, "layer batch head dest src"]:
        """From a pass up to the last layer asked."""
        moved = self._moved(batch, embeddings)
        acts = self.model.cache(batch.clean, ["pattern"], layers=layers, lengths=batch.lengths, interventions=moved)
        return acts.stack("pattern")

    def _moved(self, batch: ContrastBatch, embeddings: Embeddings) -> Cell:
        """What puts embeddings in place of the tokens' own, where they are not."""
        moved = (embeddings != self.embeddings(batch.clean)).any(-1) & batch.mask
        return (Intervention(_EMBED, Replace(embeddings, moved)),) if bool(moved.any()) else ()
