"""`HookedAdapter`: attribution of a `HookedModel`, with deletions run by the causal sweep engine."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention, Replace
from mechxai.core.metric import Metric
from mechxai.core.shapes import PerPrompt, Tokens
from mechxai.core.site import Site
from mechxai.engine.chunk import metric_values
from mechxai.engine.run import run_sweep
from mechxai.engine.sweep import Cell, Sweep, run_tokens
from mechxai.methods.attribution._lib.adapters.protocol import Deletion, DeletionScores, Embeddings, ModelAdapter
from mechxai.model.backends.base import frozen
from mechxai.model.backends.from_embeddings import final_streams, mean_embedding, token_embeddings
from mechxai.model.hooked_model import HookedModel

_EMBED = Site("embed")


@dataclass(frozen=True)
class HookedAdapter(ModelAdapter):
    """A `HookedModel` as an `AttributionModel`."""

    model: HookedModel
    has_internals: bool = True

    @property
    def identity(self) -> str:
        """Weight hash, backend, processing and dtype."""
        return self.model.identity

    @property
    def n_outputs(self) -> int:
        """Size of the vocabulary."""
        return self.model.architecture.d_vocab

    def answer_text(self, answer: Sequence[int]) -> str:
        """The answer's tokens, joined."""
        return "".join(self.model.text.strings(answer))

    def embeddings(self, tokens: Tokens) -> Embeddings:
        """The activations at ``hook_embed``."""
        return token_embeddings(self.model, tokens)

    def mean_embedding(self) -> Float[Tensor, " d_model"]:
        """The mean embedding of the vocabulary. Cost: one pass of the vocabulary through the embedding."""
        return mean_embedding(self.model)

    def score(self, metric: Metric, batch: ContrastBatch, embeddings: Embeddings) -> PerPrompt:
        """The metric from these embeddings; computes only the logits it reads, and no gradients of parameters."""
        tokens, lengths = run_tokens(batch, "clean", metric)
        prompts = torch.arange(len(batch), device=self.device)
        with frozen(self.model.backend):
            final = final_streams(
                self.model, tokens, embeddings, where=batch.mask, lengths=lengths, at=metric.positions(batch)
            )
            return metric_values(self.model, metric, batch, final=final, prompts=prompts)

    def deletion_scores(self, deletion: Deletion) -> DeletionScores:
        """One sweep; each cell is run from the first token that it deletes."""
        cells: list[Cell] = [(Intervention(_EMBED, Replace(deletion.baseline, absent)),) for absent in deletion.absent]
        base = self._embedding_edit(deletion.batch, deletion.embeddings)
        sweep = Sweep(deletion.batch, "clean", cells, deletion.metric, base)
        outcome = run_sweep(self.model, sweep, deletion.execution, label="deletions")
        return DeletionScores(outcome.values, outcome.cost["forward_passes"])

    def patterns(
        self, batch: ContrastBatch, embeddings: Embeddings, layers: Sequence[int]
    ) -> Float[Tensor, "layer batch head dest src"]:
        """Attention patterns from one pass that stops at the last of the layers."""
        base = self._embedding_edit(batch, embeddings)
        acts = self.model.cache(batch.clean, ["pattern"], layers=layers, lengths=batch.lengths, interventions=base)
        return acts.stack("pattern")

    def _embedding_edit(self, batch: ContrastBatch, embeddings: Embeddings) -> Cell:
        """The edit that puts in these embeddings where they differ from the tokens' own; empty if they do not."""
        differs = (embeddings != self.embeddings(batch.clean)).any(-1) & batch.mask
        return (Intervention(_EMBED, Replace(embeddings, differs)),) if bool(differs.any()) else ()
