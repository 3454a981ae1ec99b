"""Clean and corrupted runs: the metric of each, the gap between them, and sweeps that patch one into the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention, Patch
from mechxai.core.fields import settle_fields
from mechxai.core.metric import KlDivergence, Metric, check_finite
from mechxai.core.site import Site
from mechxai.engine.evaluate import evaluate_plan
from mechxai.engine.execution import Execution
from mechxai.engine.plan import plan
from mechxai.engine.sources import RunSource
from mechxai.engine.sweep import Cell, Sweep
from mechxai.model.hooked_model import HookedModel

Direction = Literal["denoise", "noise"]
Run = Literal["clean", "corrupted"]
_ROWS_AT_ONCE = 32
_SMALL = 1e-6  # a clean-corrupted gap below this is no denominator


@dataclass(frozen=True)
class Baselines:
    """The metric of the clean and the corrupted run.

    Attributes:
        metric: the metric.
        clean: its value on the clean run, ``[prompt]``.
        corrupted: its value on the corrupted run, ``[prompt]``.
        direction: ``denoise`` if edits patch clean into corrupted, ``noise`` if they remove clean activations.
    """

    metric: Metric
    clean: np.ndarray
    corrupted: np.ndarray
    direction: Direction

    def __post_init__(self) -> None:
        settle_fields(self)

    @property
    def gap(self) -> np.ndarray:
        """Clean minus corrupted, ``[prompt]``."""
        return self.clean - self.corrupted

    @property
    def differ(self) -> bool:
        """Whether the runs differ on average, so that the gap can be a denominator."""
        return bool(abs(self.gap.mean()) > _SMALL)

    @property
    def n_without_gap(self) -> int:
        """The number of prompts whose gap is zero."""
        return int((np.abs(self.gap) < _SMALL).sum())

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks that a reader of `recovered` needs."""
        if self.differ:
            return ()
        return (f"clean and corrupted do not differ in {self.metric.name} on average, so nothing can be recovered",)

    def moved(self, values: np.ndarray) -> np.ndarray:
        """The change of values ``[prompt, ...]`` from the edited run, positive towards the other run."""
        broadcast = (slice(None), *(None,) * (values.ndim - 1))
        return values - self.corrupted[broadcast] if self.direction == "denoise" else self.clean[broadcast] - values

    def recovered(self, values: np.ndarray) -> np.ndarray:
        """The mean of `moved` over the mean of `gap`: 0 is no effect, 1 the full gap; NaN without a gap."""
        moved = self.moved(values).mean(0)
        return moved / self.gap.mean() if self.differ else np.full_like(moved, np.nan)


def with_reference(model: HookedModel, batch: ContrastBatch, metric: Metric) -> ContrastBatch:
    """The batch, with the clean run's next-token log-probabilities if the metric needs them."""
    batch.check_vocabulary(model.architecture.d_vocab)
    if not isinstance(metric, KlDivergence) or batch.reference is not None:
        return batch
    parts = []
    for _, part in batch.parts(_ROWS_AT_ONCE):
        logits = model.logits(part.clean, lengths=part.lengths, at=part.answer_pos[:, None])
        parts.append(logits[:, 0].float().log_softmax(-1))
    return replace(batch, reference=torch.cat(parts))


def baseline(model: HookedModel, batch: ContrastBatch, run: str, *, metric: Metric, base: Cell = ()) -> np.ndarray:
    """The metric of a run without the edit of any cell, ``[prompt]``. Cost: one forward pass per prompt."""
    unedited = Sweep(batch, run, [()], metric, base)
    planned = plan(model, unedited, Execution("hooked", tokens_per_wave=_ROWS_AT_ONCE * batch.n_pos))
    values = evaluate_plan(model, unedited, planned)[0]
    check_finite(values, f"the {run} run")
    return values.numpy()


def baselines(
    model: HookedModel,
    batch: ContrastBatch,
    metric: Metric,
    *,
    direction: Direction,
    known: Mapping[str, Tensor] = MappingProxyType({}),
) -> Baselines:
    """The metric of both runs. Cost: one forward pass per prompt for each run that is not ``known``."""
    clean, corrupted = (
        known[run].numpy() if run in known else baseline(model, batch, run, metric=metric) for run in get_args(Run)
    )
    return Baselines(metric, clean, corrupted, direction)


def patching(
    model: HookedModel, batch: ContrastBatch, metric: Metric, *, sites: Sequence[Site], direction: Direction
) -> Sweep:
    """The sweep that patches clean activations into the corrupted run (``denoise``) or the reverse, a site per cell."""
    base, source = ("corrupted", "clean") if direction == "denoise" else ("clean", "corrupted")
    whole_sites = tuple(dict.fromkeys(site.whole for site in sites))
    patch = Patch(RunSource(model, batch, source, metric, whole_sites))
    return Sweep(batch, base, [(Intervention(site, patch),) for site in sites], metric)
