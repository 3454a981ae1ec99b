"""What every family writes beside its numbers: coordinates a reader understands, and how the result came about."""

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

ALONE = "attention weights alone do not say what mattered: set them beside an intervention or a gradient"


def coordinates(method: Method, batch: TokenPrompts, axes: Mapping[str, Sequence[Position]]) -> dict[str, object]:
    """The coords of a result: numbers for layers, heads and neurons, labels for positions."""
    site = method.settings().get("site")
    coords: dict[str, object] = {
        axis: (position_labels(batch, values) if axis == "pos" else list(values)) for axis, values in axes.items()
    }
    coords["prompt"] = list(range(len(batch)))
    if isinstance(site, str):
        coords["site"] = site_name(site).name
    return coords


def position_labels(batch: TokenPrompts, positions: Sequence[Position]) -> list[str]:
    """``"5: John"``: the position and the token all prompts share there, or the role that sits there in all of them."""
    roles: dict[int, str] = {}
    for role, at in batch.roles.items():
        first = int(at[0])
        if bool((at == first).all()) and not role.endswith("_first"):
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
    """The tokens of every prompt as text, ``[prompt, pos]``, empty behind its end."""
    rows = zip(tokens.tolist(), lengths.tolist(), strict=True)
    texts = [[*codec.strings(row[:n]), *[""] * (len(row) - n)] for row, n in rows]
    return variable(("prompt", "pos"), np.array(texts, dtype=str), "text", "the tokens")


def bounded(
    name: str, dims: tuple[str, ...], per_example: np.ndarray, *, units: str, meaning: str, title: str | None = None
) -> dict[str, xr.DataArray]:
    """The mean over prompts, NaN left out, as ``name``, and its 95 % interval as ``name_low`` and ``name_high``.

    Args:
        name: of the variable.
        dims: of the mean.
        per_example: ``[prompt, *dims]``.
        units: of the values.
        meaning: in words.
        title: of the mean in words, where it is called otherwise.
    """
    found = variable(dims, known_mean(per_example), units, title or meaning)
    return {name: found} | _ends(
        name, found, mean_interval(per_example), meaning=f"{meaning}, 95 % bootstrap over prompts"
    )


def rates(
    name: str, dims: tuple[str, ...], per_example: np.ndarray, *, meaning: str, units: str = "fraction"
) -> dict[str, xr.DataArray]:
    """As `bounded`, of what mostly holds or does not: of nothing but 0s and 1s the interval is Wilson's."""
    if not np.isin(per_example[~np.isnan(per_example)], (0.0, 1.0)).all():
        return bounded(name, dims, per_example, units=units, meaning=meaning)
    found = variable(dims, known_mean(per_example), units, meaning)
    return {name: found} | _ends(name, found, share_interval(per_example), meaning=f"{meaning}, 95 % (Wilson)")


def _ends(name: str, found: xr.DataArray, interval: Interval, *, meaning: str) -> dict[str, xr.DataArray]:
    dims, units = tuple(map(str, found.dims)), str(found.attrs["units"])
    ends = {"low": interval.low, "high": interval.high}
    return {f"{name}_{end}": variable(dims, values, units, f"{meaning}, {end}") for end, values in ends.items()}


def shares_of_gap(
    dims: tuple[str, ...], per_example: np.ndarray, known: Baselines, *, meaning: str
) -> dict[str, xr.DataArray]:
    """``recovered``, what was moved as a share of the clean-corrupted gap, with its interval, and both baselines.

    Args:
        dims: of the share.
        per_example: by how much the metric moves, ``[prompt, *dims]``.
        known: the metric of both runs.
        meaning: of the share, in words.
    """
    bounds = ratio_interval(per_example, known.gap)
    share = per_example.mean(0) / known.gap.mean() if known.differ else np.full(per_example.shape[1:], np.nan)
    unit = known.metric.unit
    return {
        "recovered": variable(dims, share, "fraction", meaning),
        "recovered_low": variable(dims, bounds.low, "fraction", f"{meaning}, 95 % bootstrap, low"),
        "recovered_high": variable(dims, bounds.high, "fraction", f"{meaning}, 95 % bootstrap, high"),
        "baseline_clean": variable(("prompt",), known.clean, unit, "metric of the clean prompts"),
        "baseline_corrupted": variable(("prompt",), known.corrupted, unit, "metric of the corrupted prompts"),
    }


@runtime_checkable
class Described(Protocol):
    """A model that can say what it is; `HookedModel` and all others that methods take."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def card(self) -> Mapping[str, Any]:
        """Of a bundled model, its card; else empty."""
        ...

    def info(self) -> dict[str, object]:
        """What a result records of it."""
        ...


def run_info(
    method: Method, model: Described, batch: Prompts, *, cost: Mapping[str, float], notes: tuple[str, ...] = ()
) -> RunInfo:
    """How a result came about; to the notes come prompts that were dropped and what kind of model was asked."""
    settings = method.settings()
    seed = settings.get("seed")
    dropped = batch.info.get("dropped")
    if dropped:
        notes = (*notes, f"prompts dropped while the task was made: {dropped}")
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
