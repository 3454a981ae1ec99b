"""The result of a patching sweep: means, intervals, recovered fraction, units."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from mechxai.core.batch import ContrastBatch
from mechxai.core.grid import Position
from mechxai.core.method import Method
from mechxai.core.result import Result, variable
from mechxai.core.statistics import ratio_interval
from mechxai.engine.contrast import Baselines
from mechxai.engine.run import Outcome
from mechxai.methods.result_parts import bounded, coordinates, run_info
from mechxai.model.hooked_model import HookedModel


def summarise(
    method: Method,
    model: HookedModel,
    batch: ContrastBatch,
    *,
    axes: Mapping[str, Sequence[Position]],
    outcome: Outcome,
    baselines: Baselines,
) -> Result:
    """The result of a sweep over ``axes``.

    ``recovered`` is the ratio of means ``(value - corrupted) / (clean - corrupted)`` when clean activations are patched
    in (``direction="denoise"``) and one minus that ratio when they are removed (``"noise"``): 0 is no effect, 1 the
    whole clean-corrupted gap. Where some prompts lack a swept position, ``n_prompts`` counts those that have it; the
    others enter ``value`` and ``recovered`` unedited.
    """
    metric, dims = baselines.metric, tuple(axes)
    per_example = outcome.values.T.reshape(len(batch), *(len(values) for values in axes.values())).numpy()
    bounds = ratio_interval(baselines.moved(per_example), baselines.gap)
    title = f"{metric.name} after the edit"
    verb = "restores" if baselines.direction == "denoise" else "removes"
    meaning = f"share of the clean-corrupted gap in {metric.name} that the edit {verb}"
    data = xr.Dataset(
        {
            **bounded("value", dims, per_example, units=metric.unit, meaning=title, title=f"mean {title}"),
            "per_example": variable(("prompt", *dims), per_example, metric.unit, f"{title}, per prompt"),
            "recovered": variable(dims, baselines.recovered(per_example), "fraction", meaning),
            "recovered_low": variable(dims, bounds.low, "fraction", f"{meaning}, 95 % bootstrap, low"),
            "recovered_high": variable(dims, bounds.high, "fraction", f"{meaning}, 95 % bootstrap, high"),
            **{
                f"baseline_{run}": variable(("prompt",), values, metric.unit, f"{metric.name} of the {run} run")
                for run, values in (("clean", baselines.clean), ("corrupted", baselines.corrupted))
            },
            "level": variable((), outcome.level, "level", "engine level that ran"),
            "noise_floor": variable((), outcome.noise_floor, metric.unit, "change of the metric from rounding alone"),
            "excluded": variable(
                (),
                baselines.n_without_gap,
                "prompts",
                "prompts whose clean-corrupted gap is zero, which cannot be a denominator",
            ),
        },
        coords=coordinates(method, batch, axes),
    )
    n_prompts = _prompts_with_position(batch, axes)
    notes = (*outcome.notes, *baselines.notes)
    if n_prompts is not None:
        data["n_prompts"] = n_prompts
        notes = (
            *notes,
            f"some positions exist in {int(n_prompts.min())} of {len(batch)} prompts only (n_prompts); value and "
            "recovered there are over all prompts, and those without the position count as unchanged",
        )
    return Result(data, run_info(method, model, batch, cost=outcome.cost, notes=notes))


def _prompts_with_position(batch: ContrastBatch, axes: Mapping[str, Sequence[Position]]) -> xr.DataArray | None:
    """The number of prompts that have the position of each cell, ``[*axes]``; None where every prompt has them all."""
    if "pos" not in axes:
        return None
    counts = np.array([int(batch.layout.positions(pos)[1].sum()) for pos in axes["pos"]])
    if bool((counts == len(batch)).all()):
        return None
    sizes = [len(values) for values in axes.values()]
    along_pos = [size if axis == "pos" else 1 for axis, size in zip(axes, sizes, strict=True)]
    meaning = "prompts that have the position; the others count as unchanged in value and recovered"
    return variable(tuple(axes), np.broadcast_to(counts.reshape(along_pos), sizes), "prompts", meaning)
