"""`SequenceAdapter`: attribution of a classifier or encoder, which gives one output vector per text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import NoSpaceError
from mechxai.core.metric import Metric
from mechxai.core.shapes import PerPrompt, Tokens
from mechxai.engine.finished import FinishedPieces
from mechxai.engine.progress import ProgressBar
from mechxai.methods.attribution._lib.adapters.protocol import (
    Deletion,
    DeletionScores,
    Embeddings,
    NamedOutputsAdapter,
)
from mechxai.model.readout import as_float
from mechxai.model.sequence.sequence_model import SequenceModel

_POSITIONS_AT_ONCE = {"cpu": 2048, "cuda": 65536}


@dataclass(frozen=True)
class SequenceAdapter(NamedOutputsAdapter):
    """A `SequenceModel` as an `AttributionModel`."""

    model: SequenceModel
    has_internals: bool = True

    @property
    def identity(self) -> str:
        """Weight hash (an encoder's includes its references) and dtype."""
        return repr((self.model.weight_hash, str(self.model.dtype)))

    def embeddings(self, tokens: Tokens) -> Embeddings:
        """The word embeddings."""
        return self.model.embeddings(tokens)

    def mean_embedding(self) -> Float[Tensor, " d_model"]:
        """The mean embedding of the vocabulary."""
        return self.model.mean_embedding()

    def score(self, metric: Metric, batch: ContrastBatch, embeddings: Embeddings) -> PerPrompt:
        """The metric of the outputs, read as logits of the answer position."""
        outputs = self.model.outputs_of(embeddings, batch.lengths)
        return metric.score(as_float(outputs)[:, None], batch)

    def deletion_scores(self, deletion: Deletion) -> DeletionScores:
        """The metric of every cell and prompt that deletes something; a prompt without deletions is scored once."""
        mask, embeddings, baseline = deletion.mask, deletion.embeddings, deletion.baseline
        rows = deletion.absent.flatten(2).any(-1).nonzero()  # [row, 2]: cell, prompt
        n_cells, n_prompts = len(deletion), len(deletion.batch)

        def edited(part: Tensor) -> Embeddings:
            prompts = part[:, 1]
            absent = mask[part[:, 0], prompts].to(embeddings.device)
            return torch.where(absent, baseline[prompts], embeddings[prompts])

        def unedited(part: Tensor) -> Embeddings:
            return embeddings[part[:, 1]]

        prompts = torch.arange(n_prompts)
        total = self._row_scores(deletion, torch.stack([prompts, prompts], 1), unedited)[None].repeat(n_cells, 1)
        total[rows[:, 0], rows[:, 1]] = self._row_scores(deletion, rows, edited)
        return DeletionScores(total, float(len(rows) + n_prompts))

    def _part_scores(self, deletion: Deletion, part: Tensor, embeddings_of: Callable[[Tensor], Embeddings]) -> Tensor:
        return self.score(deletion.metric, deletion.batch.rows(part[:, 1]), embeddings_of(part))

    def _row_scores(
        self, deletion: Deletion, rows: Int[Tensor, "row 2"], embeddings_of: Callable[[Tensor], Embeddings]
    ) -> Float[Tensor, " row"]:
        """Scores of rows, each a cell and a prompt, as many at a time as fit."""
        batch, execution = deletion.batch, deletion.execution
        positions = execution.tokens_per_wave or _POSITIONS_AT_ONCE.get(self.device.type, 2048)
        at_once = max(1, positions // batch.n_pos)
        scores: list[Tensor] = []
        first = 0
        question = ("deletions", self.identity, batch, deletion.metric, deletion.embeddings, deletion.baseline)
        with (
            FinishedPieces(execution.cells, *question, deletion.mask) as finished,
            ProgressBar("deletions", len(rows), shown=execution.progress, unit="rows") as bar,
            torch.no_grad(),
        ):
            while first < len(rows):
                part = rows[first : first + at_once]

                score = partial(self._part_scores, deletion, part, embeddings_of)
                try:
                    values = finished.take((embeddings_of.__name__, part), score)
                except torch.cuda.OutOfMemoryError:
                    if at_once == 1:
                        raise NoSpaceError(
                            f"One text of {batch.n_pos} tokens does not fit into the memory of {self.device}",
                            fix="Use a shorter text, a smaller dtype or another device",
                        ) from None
                    at_once //= 2
                    continue
                scores.append(values.double().cpu())
                first += len(part)
                bar.advance(len(part))
        return torch.cat(scores) if scores else torch.zeros(0, dtype=torch.float64)

    def patterns(
        self, batch: ContrastBatch, embeddings: Embeddings, layers: Sequence[int]
    ) -> Float[Tensor, "layer batch head dest src"]:
        """Attention patterns from one pass."""
        return self.model.patterns(embeddings, batch.lengths, layers)
