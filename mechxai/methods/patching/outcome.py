"""From a sweep's raw values to a result: means, intervals, recovery, units."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr

from mechxai.core.batch import ContrastBatch
from mechxai.core.grid import Position
from mechxai.core.method import Method
from mechxai.core.metric import KlDivergence, Metric, check_finite
from mechxai.core.provenance import commit, versions
from mechxai.core.result import Result, RunInfo, variable
from mechxai.core.site import site_name
from mechxai.core.statistics import mean_interval, ratio_interval
from mechxai.engine.job import Job
from mechxai.engine.levels import run_base
from mechxai.engine.run import Outcome
from mechxai.engine.sweep import Cell
from mechxai.model.hooked_model import HookedModel

_ROWS_AT_ONCE = 32
_SMALL = 1e-6  # a clean-corrupted gap below this is no denominator


def with_reference(model: HookedModel, batch: ContrastBatch, metric: Metric) -> ContrastBatch:
    """The batch with the clean run's next-token log-probabilities, where the metric needs them."""
    if not isinstance(metric, KlDivergence) or batch.reference is not None:
        return batch
    parts = []
    for start in range(0, len(batch), _ROWS_AT_ONCE):
        part = batch.rows(slice(start, start + _ROWS_AT_ONCE))
        logits = model.logits(part.clean, lengths=part.lengths, at=part.answer_pos[:, None])
        parts.append(logits[:, 0].float().log_softmax(-1))
    return replace(batch, reference=torch.cat(parts))


def baseline(model: HookedModel, batch: ContrastBatch, run: str, metric: Metric, base: Cell = ()) -> np.ndarray:
    """The metric of a run without any cell's edit, ``[prompt]``."""
    parts = []
    for start in range(0, len(batch), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        cut = tuple(replace(one, edit=one.edit.rows(rows)) for one in base)
        parts.append(run_base(model, Job(batch.rows(rows), run, [], metric, cut)).double().cpu())
    values = torch.cat(parts)
    check_finite(values, f"the {run} run")
    return values.numpy()


def summarise(
    method: Method,
    model: HookedModel,
    batch: ContrastBatch,
    *,
    axes: Mapping[str, Sequence[Position]],
    outcome: Outcome,
    metric: Metric,
    clean: np.ndarray,
    corrupted: np.ndarray,
    direction: str,
    seed: int | None = None,
) -> Result:
    """The result of a sweep over ``axes``.

    ``recovered`` is the ratio of means ``(value - corrupted) / (clean - corrupted)`` when clean is patched in
    (``direction="denoise"``) and one minus it when it is taken away (``"noise"``): 0 is no effect, 1 all of it.
    """
    shape = tuple(len(values) for values in axes.values())
    dims = tuple(axes)
    per_example = outcome.values.T.reshape(len(batch), *shape).numpy()
    interval = mean_interval(per_example)
    gap = clean - corrupted
    wide = (slice(None), *(None,) * len(shape))
    above = per_example - corrupted[wide] if direction == "denoise" else clean[wide] - per_example
    usable = abs(gap.mean()) > _SMALL
    recovered = above.mean(0) / gap.mean() if usable else np.full(shape, np.nan)
    bounds = ratio_interval(above, gap)
    title = f"{metric.name} after the edit"
    meaning = f"share of the clean-corrupted gap in {metric.name} that the edit " + (
        "restores" if direction == "denoise" else "removes"
    )
    data = xr.Dataset(
        {
            "value": variable(dims, per_example.mean(0), metric.unit, f"mean {title}"),
            "value_low": variable(dims, interval.low, metric.unit, f"{title}, 95 % bootstrap over prompts, low"),
            "value_high": variable(dims, interval.high, metric.unit, f"{title}, 95 % bootstrap over prompts, high"),
            "per_example": variable(("prompt", *dims), per_example, metric.unit, f"{title}, per prompt"),
            "recovered": variable(dims, recovered, "fraction", meaning),
            "recovered_low": variable(dims, bounds.low, "fraction", f"{meaning}, 95 % bootstrap, low"),
            "recovered_high": variable(dims, bounds.high, "fraction", f"{meaning}, 95 % bootstrap, high"),
            "baseline_clean": variable(("prompt",), clean, metric.unit, f"{metric.name} of the clean run"),
            "baseline_corrupted": variable(("prompt",), corrupted, metric.unit, f"{metric.name} of the corrupted run"),
            "level": variable((), outcome.level, "level", "engine level that ran"),
            "noise_floor": variable((), outcome.noise_floor, metric.unit, "what rounding alone changes"),
            "excluded": variable(
                (),
                int((np.abs(gap) < _SMALL).sum()),
                "prompts",
                "prompts whose own clean-corrupted gap is zero, of no use as denominators",
            ),
        },
        coords=coordinates(method, batch, axes),
    )
    notes = list(outcome.notes)
    if not usable:
        notes.append(f"clean and corrupted do not differ in {metric.name} on average, so nothing can be recovered")
    dropped = batch.info.get("dropped")
    if dropped:
        notes.append(f"prompts dropped while the task was made: {dropped}")
    return Result(data, run_info(method, model, batch, cost=outcome.cost, notes=tuple(notes), seed=seed))


def coordinates(method: Method, batch: ContrastBatch, axes: Mapping[str, Sequence[Position]]) -> dict[str, object]:
    """The coords of a result: numbers for layers, heads and neurons, labels for positions."""
    site = method.settings().get("site")
    coords: dict[str, object] = {
        axis: (position_labels(batch, values) if axis == "pos" else list(values)) for axis, values in axes.items()
    }
    coords["prompt"] = list(range(len(batch)))
    if isinstance(site, str):
        coords["site"] = site_name(site).name
    return coords


def position_labels(batch: ContrastBatch, positions: Sequence[Position]) -> list[str]:
    """``"5: John"``: the position and the token all prompts share there, or the role that sits there in all of them."""
    roles: dict[int, str] = {}
    for role, at in batch.roles.items():
        first = int(at[0])
        if bool((at == first).all()) and not role.endswith("_first"):
            roles[first] = role
    labels = []
    for pos in positions:
        if isinstance(pos, str) or pos < 0:
            labels.append(str(pos))
            continue
        token = batch.labels[pos] if pos < len(batch.labels) else ""
        text = token or roles.get(pos, "")
        if not text and len(batch) == 1 and batch.strings:
            text = batch.strings[0][pos].strip() if pos < len(batch.strings[0]) else ""
        labels.append(f"{pos}: {text}" if text else str(pos))
    return labels


def run_info(
    method: Method,
    model: HookedModel,
    batch: ContrastBatch,
    *,
    cost: Mapping[str, float],
    notes: tuple[str, ...],
    seed: int | None = None,
) -> RunInfo:
    """How a result came about."""
    task = dict(batch.info) or {"name": "given", "n": len(batch)}
    if model.card.get("kind"):
        notes = (
            (*notes, f"{model.name} is {model.card['kind']}: {model.card.get('description', '')}")
            if model.card["kind"] == "planted"
            else notes
        )
    return RunInfo(method.settings(), model.info(), task, seed, versions(), commit(), dict(cost), notes)
