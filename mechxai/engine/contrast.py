"""The clean run against the corrupted run: their metric, the gap between them, and patches across it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention, Patch
from mechxai.core.metric import KlDivergence, Metric, check_finite
from mechxai.core.site import Site
from mechxai.engine.evaluate import evaluated
from mechxai.engine.execution import Execution
from mechxai.engine.plan import plan
from mechxai.engine.sources import RunSource
from mechxai.engine.sweep import Cell, Sweep
from mechxai.model.hooked_model import HookedModel

Direction = Literal["denoise", "noise"]
Run = Literal["clean", "corrupted"]
RUNS = get_args(Run)
DIRECTIONS = get_args(Direction)
_ROWS_AT_ONCE = 32
_SMALL = 1e-6  # a clean-corrupted gap below this is no denominator


@dataclass(frozen=True)
class Baselines:
    """A metric on the two runs between which a sweep moves.

    Attributes:
        metric: what was measured.
        clean: its value on the clean run, ``[prompt]``.
        corrupted: likewise.
        direction: ``denoise`` when edits put clean into corrupted, ``noise`` when they take clean away.
    """

    metric: Metric
    clean: np.ndarray
    corrupted: np.ndarray
    direction: str

    @property
    def gap(self) -> np.ndarray:
        """Clean minus corrupted, ``[prompt]``."""
        return self.clean - self.corrupted

    @property
    def differ(self) -> bool:
        """Whether the runs differ on average, so that their gap can be a denominator."""
        return bool(abs(self.gap.mean()) > _SMALL)

    @property
    def n_without_gap(self) -> int:
        """Prompts whose own gap is zero."""
        return int((np.abs(self.gap) < _SMALL).sum())

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of `recovered` must know."""
        if self.differ:
            return ()
        return (f"clean and corrupted do not differ in {self.metric.name} on average, so nothing can be recovered",)

    def moved(self, values: np.ndarray) -> np.ndarray:
        """How far values ``[prompt, ...]`` have moved from the run that was edited towards the other."""
        wide = (slice(None), *(None,) * (values.ndim - 1))
        return values - self.corrupted[wide] if self.direction == "denoise" else self.clean[wide] - values

    def recovered(self, values: np.ndarray) -> np.ndarray:
        """Ratio of the means of `moved` and `gap`: 0 is no effect, 1 all of it; NaN where the runs do not differ."""
        moved = self.moved(values).mean(0)
        return moved / self.gap.mean() if self.differ else np.full_like(moved, np.nan)


def with_reference(model: HookedModel, batch: ContrastBatch, metric: Metric) -> ContrastBatch:
    """The batch with the clean run's next-token log-probabilities, where the metric needs them."""
    if not isinstance(metric, KlDivergence) or batch.reference is not None:
        return batch
    parts = []
    for _, part in batch.parts(_ROWS_AT_ONCE):
        logits = model.logits(part.clean, lengths=part.lengths, at=part.answer_pos[:, None])
        parts.append(logits[:, 0].float().log_softmax(-1))
    return replace(batch, reference=torch.cat(parts))


def baseline(model: HookedModel, batch: ContrastBatch, run: str, *, metric: Metric, base: Cell = ()) -> np.ndarray:
    """The metric of a run without any cell's edit, ``[prompt]``. Cost: one forward pass per prompt."""
    alone = Sweep(batch, run, [()], metric, base)
    planned = plan(model, alone, Execution("hooked", tokens_per_wave=_ROWS_AT_ONCE * batch.n_pos))
    values = evaluated(model, alone, planned)[0]
    check_finite(values, f"the {run} run")
    return values.numpy()


def baselines(
    model: HookedModel,
    batch: ContrastBatch,
    metric: Metric,
    *,
    direction: str,
    known: Mapping[str, Tensor] = MappingProxyType({}),
) -> Baselines:
    """The metric of both runs. Cost: a forward pass per prompt for each run that is not ``known``."""
    clean, corrupted = (
        known[run].numpy() if run in known else baseline(model, batch, run, metric=metric) for run in RUNS
    )
    return Baselines(metric, clean, corrupted, direction)


def patching(
    model: HookedModel, batch: ContrastBatch, metric: Metric, *, sites: Sequence[Site], direction: str
) -> Sweep:
    """The sweep that puts clean activations into the corrupted run (``denoise``) or the reverse, one site per cell."""
    base, source = ("corrupted", "clean") if direction == "denoise" else ("clean", "corrupted")
    whole = tuple(dict.fromkeys(site.whole for site in sites))
    patch = Patch(RunSource(model, batch, source, metric, whole))
    return Sweep(batch, base, [(Intervention(site, patch),) for site in sites], metric)
