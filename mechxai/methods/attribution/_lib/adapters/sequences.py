"""The adapter for texts with one output vector each, and the choice of adapter for a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import NoSpaceError
from mechxai.core.metric import Metric
from mechxai.core.shapes import PerPrompt, Tokens
from mechxai.engine.execution import Execution
from mechxai.engine.progress import ProgressBar
from mechxai.methods.attribution._lib.adapters.black_boxes import BlackBoxAdapter
from mechxai.methods.attribution._lib.adapters.hooked import (
    AttributionModel,
    Embeddings,
    HookedAdapter,
    NamedOutputsAdapter,
    Removals,
)
from mechxai.model.hooked_model import HookedModel
from mechxai.model.readout import as_float
from mechxai.model.sequence.black_box import BlackBox
from mechxai.model.sequence.sequence_model import SequenceModel

_POSITIONS_AT_ONCE = {"cpu": 2048, "cuda": 65536}


def attribution_model(model: Any) -> AttributionModel:
    """A model as attribution sees it; what is one already stays as it is."""
    if isinstance(model, HookedModel):
        return HookedAdapter(model)
    if isinstance(model, BlackBox):
        return BlackBoxAdapter(model)
    return SequenceAdapter(model) if isinstance(model, SequenceModel) else model


@dataclass(frozen=True)
class SequenceAdapter(NamedOutputsAdapter):
    """A `SequenceModel` explained."""

    model: SequenceModel
    inside: bool = True

    @property
    def identity(self) -> str:
        """Weights (an encoder's references are in their hash) and dtype."""
        return repr((self.model.weight_hash, str(self.model.dtype)))

    def embeddings(self, tokens: Tokens) -> Embeddings:
        """The word embeddings."""
        return self.model.embeddings(tokens)

    def mean_embedding(self) -> Float[Tensor, " d_model"]:
        """Over the vocabulary."""
        return self.model.mean_embedding()

    def score(self, metric: Metric, batch: ContrastBatch, embeddings: Embeddings) -> PerPrompt:
        """The metric of the outputs, as if they stood at the answer position."""
        outputs = self.model.outputs_of(embeddings, batch.lengths)
        return metric.score(as_float(outputs)[:, None], batch)

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
        """Rows of every cell and prompt with a token away, as many at a time as fit; the rest scored once."""
        where = absent if absent.ndim == 4 else absent[..., None]
        gone = absent.flatten(2).any(-1)
        rows = gone.nonzero()
        everyone = torch.arange(len(batch))
        total = self._in_parts(metric, batch, everyone, lambda _: embeddings, execution)[None].repeat(len(absent), 1)

        def given(part: Tensor) -> Tensor:
            prompts = part[:, 1]
            chosen = where[part[:, 0], prompts].to(embeddings.device)
            return torch.where(chosen, baseline[prompts], embeddings[prompts])

        total[rows[:, 0], rows[:, 1]] = self._in_parts(metric, batch, rows, given, execution)
        return Removals(total, float(len(rows) + len(batch)))

    def _in_parts(self, metric: Metric, batch: ContrastBatch, rows: Tensor, given: Any, execution: Execution) -> Tensor:  # noqa: PLR0917 - one call
        """Scores of rows, ``[row]``; each is a prompt's number, or a cell and a prompt."""
        positions = execution.tokens_per_wave or _POSITIONS_AT_ONCE.get(self.device.type, 2048)
        at_once = max(1, positions // batch.n_pos)
        found: list[Tensor] = []
        first = 0
        with ProgressBar("tokens taken away", len(rows), shown=execution.progress, unit="rows") as bar, torch.no_grad():
            while first < len(rows):
                part = rows[first : first + at_once]
                prompts = part if part.ndim == 1 else part[:, 1]
                try:
                    here = self.score(metric, batch.rows(prompts), given(part))
                except torch.cuda.OutOfMemoryError:
                    if at_once == 1:
                        raise NoSpaceError("One text alone", got=f"out of memory on {self.device}") from None
                    at_once //= 2
                    continue
                found.append(here.double().cpu())
                first += len(part)
                bar.advance(len(part))
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)

    def patterns(
        self, batch: ContrastBatch, embeddings: Embeddings, layers: Sequence[int]
    ) -> Float[Tensor, "layer batch head dest src"]:
        """From one pass."""
        return self.model.patterns(embeddings, batch.lengths, layers)
