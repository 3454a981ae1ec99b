"""Parts of a result that all families share: readable coordinates, variables with intervals, and its `RunInfo`."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import xarray as xr

from mechxai.core.grid import Position
from mechxai.core.method import Method
from mechxai.core.prompts import Prompts, TokenPrompts
from mechxai.core.result import RunInfo, variable
from mechxai.core.shapes import PromptInts, Tokens
from mechxai.core.site_table import site_name
from mechxai.core.statistics import Interval, known_mean, mean_interval, ratio_interval, share_interval
from mechxai.core.versions import commit, versions
from mechxai.engine.contrast import Baselines
from mechxai.model.text import TextCodec

ALONE = "attention weights alone do not show what mattered: compare them with an intervention or a gradient"


def coordinates(method: Method, batch: TokenPrompts, axes: Mapping[str, Sequence[Position]]) -> dict[str, object]:
    """The coordinates of a result: numbers for layers, heads and neurons, labels for positions."""
    site = method.settings().get("site")
    coords: dict[str, object] = {
        axis: (position_labels(batch, values) if axis == "pos" else list(values)) for axis, values in axes.items()
    }
    coords["prompt"] = list(range(len(batch)))
    if isinstance(site, str):
        coords["site"] = site_name(site).name
    return coords


def position_labels(batch: TokenPrompts, positions: Sequence[Position]) -> list[str]:
    """Labels such as ``"5: John"``: the position, and the token or the role that all prompts have there."""
    roles: dict[int, str] = {}
    for role, role_pos in batch.roles.items():
        first = int(role_pos[0])
        if bool((role_pos == first).all()) and not role.endswith("_first"):
            roles[first] = role
    return [
        str(pos) if isinstance(pos, str) or pos < 0 else _label(batch, pos, roles.get(pos, "")) for pos in positions
    ]


def _label(batch: TokenPrompts, pos: int, role: str) -> str:
    token = batch.axis[pos] if pos < len(batch.axis) else ""
    text = token or role
    if not text and len(batch) == 1 and batch.strings:
        text = batch.strings[0][pos].strip() if pos < len(batch.strings[0]) else ""
    return f"{pos}: {text}" if text else str(pos)


def token_texts(codec: TextCodec, tokens: Tokens, lengths: PromptInts) -> xr.DataArray:
    """The tokens of every prompt as text, ``[prompt, pos]``; empty strings for padding."""
    rows = zip(tokens.tolist(), lengths.tolist(), strict=True)
    texts = [[*codec.strings(row[:n]), *[""] * (len(row) - n)] for row, n in rows]
    return variable(("prompt", "pos"), np.array(texts, dtype=str), "text", "the tokens")


def bounded(
    name: str, dims: tuple[str, ...], per_example: np.ndarray, *, units: str, meaning: str, title: str | None = None
) -> dict[str, xr.DataArray]:
    """The mean over prompts as ``name`` and its 95 % bootstrap interval as ``name_low`` and ``name_high``; skips NaN.

    Args:
        name: name of the variable.
        dims: dimensions of the mean.
        per_example: values by prompt, ``[prompt, *dims]``.
        units: units of the values.
        meaning: long name of the values.
        title: long name of the mean, if it differs from `meaning`.
    """
    mean = variable(dims, known_mean(per_example), units, title or meaning)
    return {name: mean} | _bounds(
        name, mean, mean_interval(per_example), meaning=f"{meaning}, 95 % bootstrap over prompts"
    )


def rates(
    name: str, dims: tuple[str, ...], per_example: np.ndarray, *, meaning: str, units: str = "fraction"
) -> dict[str, xr.DataArray]:
    """As `bounded`, for rates: values that are all 0 or 1 get the Wilson interval instead of the bootstrap."""
    if not np.isin(per_example[~np.isnan(per_example)], (0.0, 1.0)).all():
        return bounded(name, dims, per_example, units=units, meaning=meaning)
    rate = variable(dims, known_mean(per_example), units, meaning)
    return {name: rate} | _bounds(name, rate, share_interval(per_example), meaning=f"{meaning}, 95 % (Wilson)")


def _bounds(name: str, mean: xr.DataArray, interval: Interval, *, meaning: str) -> dict[str, xr.DataArray]:
    dims, units = tuple(map(str, mean.dims)), str(mean.attrs["units"])
    bounds = {"low": interval.low, "high": interval.high}
    return {f"{name}_{bound}": variable(dims, values, units, f"{meaning}, {bound}") for bound, values in bounds.items()}


def shares_of_gap(
    dims: tuple[str, ...], per_example: np.ndarray, baselines: Baselines, *, meaning: str
) -> dict[str, xr.DataArray]:
    """``recovered``, the metric's change as a share of the clean-corrupted gap, with its interval; and both baselines.

    Args:
        dims: dimensions of the share.
        per_example: change of the metric by prompt, ``[prompt, *dims]``.
        baselines: the metric of the clean and of the corrupted run.
        meaning: long name of the share.
    """
    bounds = ratio_interval(per_example, baselines.gap)
    share = per_example.mean(0) / baselines.gap.mean() if baselines.differ else np.full(per_example.shape[1:], np.nan)
    unit = baselines.metric.unit
    return {
        "recovered": variable(dims, share, "fraction", meaning),
        "recovered_low": variable(dims, bounds.low, "fraction", f"{meaning}, 95 % bootstrap, low"),
        "recovered_high": variable(dims, bounds.high, "fraction", f"{meaning}, 95 % bootstrap, high"),
        "baseline_clean": variable(("prompt",), baselines.clean, unit, "metric of the clean prompts"),
        "baseline_corrupted": variable(("prompt",), baselines.corrupted, unit, "metric of the corrupted prompts"),
    }


@runtime_checkable
class Described(Protocol):
    """A model with a name, a card and an info record: `HookedModel` and every other model that methods accept."""

    @property
    def name(self) -> str:
        """The model's name."""
        ...

    @property
    def card(self) -> Mapping[str, Any]:
        """The card of a bundled model; empty for others."""
        ...

    def info(self) -> dict[str, object]:
        """What a result records about the model."""
        ...


def run_info(
    method: Method, model: Described, batch: Prompts, *, cost: Mapping[str, float], notes: tuple[str, ...] = ()
) -> RunInfo:
    """The record of how a result was computed, with notes on dropped prompts and on planted models."""
    settings = method.settings()
    seed = settings.get("seed")
    dropped = batch.info.get("dropped")
    if dropped:
        notes = (*notes, f"prompts dropped when the task was built: {dropped}")
    if model.card.get("kind") == "planted":
        notes = (*notes, f"{model.name} is planted: {model.card.get('description', '')}")
    return RunInfo(
        method=settings,
        model=model.info(),
        task=dict(batch.info) or {"name": "given", "n": len(batch)},
        seed=seed if isinstance(seed, int) else None,
        versions=versions(),
        commit=commit(),
        cost=dict(cost),
        notes=notes,
        kind=method.card.kind,
    )
