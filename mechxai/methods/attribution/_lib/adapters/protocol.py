"""`AttributionModel`: what attribution needs from a model, and the base classes of its adapters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.core.architecture import Architecture
from mechxai.core.batch import ContrastBatch
from mechxai.core.metric import Metric
from mechxai.core.shapes import PerPrompt, Tokens
from mechxai.engine.execution import Execution
from mechxai.model.text import TextCodec

Embeddings = Float[Tensor, "batch pos d_model"]


@dataclass(frozen=True, eq=False)
class Deletion:
    """Deletions to score: each cell replaces some embeddings of every prompt by the baseline's.

    Attributes:
        metric: what is scored.
        batch: the prompts.
        embeddings: of the clean prompts, ``[batch, pos, d_model]``.
        baseline: the embeddings put in their place, ``[batch, pos, d_model]``.
        absent: what each cell replaces: tokens, ``[cell, batch, pos]``, or single dimensions, ``[..., d_model]``.
        execution: how to run.
    """

    metric: Metric
    batch: ContrastBatch
    embeddings: Embeddings
    baseline: Embeddings
    absent: Bool[Tensor, "cell batch ..."]
    execution: Execution

    def __len__(self) -> int:
        return len(self.absent)

    @property
    def mask(self) -> Bool[Tensor, "cell batch pos _"]:
        """What each cell replaces, with a last axis of 1 or ``d_model``."""
        return self.absent if self.absent.ndim == 4 else self.absent[..., None]


@dataclass(frozen=True)
class DeletionScores:
    """The metric after each deletion.

    Attributes:
        scores: ``[cell, batch]``, float64, on the CPU.
        worked: forward passes per prompt that were really run, after what the engine saves.
    """

    scores: Float[Tensor, "cell batch"]
    worked: float


@runtime_checkable
class AttributionModel(Protocol):
    """A model as the attribution methods use it."""

    @property
    def has_internals(self) -> bool:
        """Whether the model has embeddings, gradients and attention; a black box only maps text to scores."""
        ...

    @property
    def identity(self) -> str:
        """Everything about the model that decides its numbers, as text."""
        ...

    @property
    def text(self) -> TextCodec:
        """The tokenizer and its conventions."""
        ...

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        ...

    @property
    def architecture(self) -> Architecture:
        """The model's dimensions."""
        ...

    @property
    def n_outputs(self) -> int:
        """Number of possible answers: tokens of the vocabulary, or classes."""
        ...

    def answer_text(self, answer: Sequence[int]) -> str:
        """An answer as text: its tokens joined, or the name of a class."""
        ...

    def embeddings(self, tokens: Tokens) -> Embeddings:
        """The token embeddings."""
        ...

    def mean_embedding(self) -> Float[Tensor, " d_model"]:
        """The mean embedding of the vocabulary."""
        ...

    def score(self, metric: Metric, batch: ContrastBatch, embeddings: Embeddings) -> PerPrompt:
        """The metric on the clean prompts with their embeddings replaced by these; differentiable in them."""
        ...

    def deletion_scores(self, deletion: Deletion) -> DeletionScores:
        """The metric of every prompt under every cell of a deletion."""
        ...

    def patterns(
        self, batch: ContrastBatch, embeddings: Embeddings, layers: Sequence[int]
    ) -> Float[Tensor, "layer batch head dest src"]:
        """Attention patterns of the layers, on the clean prompts with these embeddings."""
        ...


class ModelAdapter:
    """Base of the adapters: passes on the text codec, device and architecture of the adapted model.

    Attributes:
        model: the adapted model.
        replaces_tokens: whether token ids play the part of embeddings, as the model reads tokens in later layers too.
    """

    replaces_tokens: ClassVar[bool] = False

    model: Any

    @property
    def text(self) -> TextCodec:
        """The model's text codec."""
        return self.model.text

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return self.model.device

    @property
    def architecture(self) -> Architecture:
        """The model's architecture."""
        return self.model.architecture


class NamedOutputsAdapter(ModelAdapter):
    """Base of the adapters of models whose outputs have names: classes, references, or a black box's scores."""

    @property
    def n_outputs(self) -> int:
        """Number of outputs."""
        return len(self.model.outputs)

    def answer_text(self, answer: Sequence[int]) -> str:
        """The name of the output."""
        return self.model.outputs[answer[0]]
