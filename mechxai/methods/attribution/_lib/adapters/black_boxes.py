"""`BlackBoxAdapter`: attribution of a `BlackBox`, whose word numbers play the part of embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, ModelSupportError
from mechxai.core.metric import Metric
from mechxai.core.shapes import PerPrompt, Tokens
from mechxai.engine.execution import Execution
from mechxai.engine.finished import FinishedPieces
from mechxai.engine.progress import ProgressBar
from mechxai.methods.attribution._lib.adapters.protocol import (
    Deletion,
    DeletionScores,
    Embeddings,
    NamedOutputsAdapter,
)
from mechxai.model.sequence.black_box import BlackBox

_TEXTS_AT_ONCE = 64


@dataclass(frozen=True)
class BlackBoxAdapter(NamedOutputsAdapter):
    """A `BlackBox` as an `AttributionModel`. The function scores each distinct text once per call."""

    model: BlackBox
    has_internals: bool = False

    @property
    def identity(self) -> str:
        """Name, version and outputs, hashed."""
        return str(self.model.info()["weight_hash"])

    def embeddings(self, tokens: Tokens) -> Embeddings:
        """The word numbers, ``[batch, pos, 1]``."""
        return tokens.double()[..., None]

    def mean_embedding(self) -> Float[Tensor, " d_model"]:
        """Not available: a black box has no embeddings.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"baseline='mean' needs embeddings, and {self.model.name} is a black box",
            allowed="pad (the word is left out), mask (an ellipsis), counterfactual",
        )

    def score(self, metric: Metric, batch: ContrastBatch, embeddings: Embeddings) -> PerPrompt:
        """The metric of the texts that the word numbers spell."""
        texts = self.model.texts(embeddings[..., 0].long(), batch.lengths)
        return metric.score(self._outputs(texts, Execution())[:, None], batch)

    def deletion_scores(self, deletion: Deletion) -> DeletionScores:
        """The metric of every text with deletions; equal texts are scored once."""
        batch, n_cells = deletion.batch, len(deletion)
        words = torch.where(deletion.mask, deletion.baseline[None], deletion.embeddings[None])[..., 0].long()
        texts = self.model.texts(words.flatten(0, 1), batch.lengths.repeat(n_cells))
        distinct = list(dict.fromkeys(texts))
        index = {text: number for number, text in enumerate(distinct)}
        outputs = self._outputs(distinct, deletion.execution)[[index[text] for text in texts]]
        scores = deletion.metric.score(outputs[:, None], batch.rows(torch.arange(len(batch)).repeat(n_cells)))
        return DeletionScores(scores.double().reshape(n_cells, len(batch)), float(len(distinct)))

    def patterns(
        self, batch: ContrastBatch, embeddings: Embeddings, layers: Sequence[int]
    ) -> Float[Tensor, "layer batch head dest src"]:
        """Not available: a black box has no attention.

        Raises:
            ModelSupportError: always.
        """
        del batch, embeddings, layers
        raise ModelSupportError(f"{self.model.name} is a black box: it has no attention patterns")

    def _outputs(self, texts: Sequence[str], execution: Execution) -> Float[Tensor, "text output"]:
        """The function's outputs, a few texts per call."""
        outputs: list[Tensor] = []
        with (
            FinishedPieces(execution.cells, "texts", self.identity) as finished,
            ProgressBar("texts", len(texts), shown=execution.progress, unit="texts") as bar,
        ):
            for first in range(0, len(texts), _TEXTS_AT_ONCE):
                part = texts[first : first + _TEXTS_AT_ONCE]
                outputs.append(finished.take(list(part), partial(self.model.outputs_of, part)))
                bar.advance(len(part))
        return torch.cat(outputs)
