"""The cells of a result: their names, coordinates, and which are largest."""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from mechxai.core.errors import MechXAIError
from mechxai.core.result import RunInfo
from mechxai.core.site import Site

_AXES = ("layer", "head", "pos", "neuron")
# Site axis -> the method field that fixes it.
_FIXED = {"layer": "layers", "head": "heads", "pos": "pos", "neuron": "neurons"}
_NUMBERED = re.compile(r"(-?\d+)(?::|$)")


@dataclass(frozen=True)
class Cell:
    """One number of a result.

    Attributes:
        name: the site (``blocks.9.z[head=6]``), or the coordinates where the cell is not a site.
        label: the position's label (``5: John``, ``S2``); empty if it is only a number.
        place: dim -> coordinate.
        value: in the variable's unit.
        low: lower end of the interval; NaN without one.
        high: upper end of the interval; NaN without one.
    """

    name: str
    label: str
    place: Mapping[str, object]
    value: float
    low: float
    high: float


def coordinates(array: xr.DataArray, dim: str) -> list[object]:
    """The coordinates along a dim as plain values; 0, 1, … if the array has none."""
    values = array.coords[dim].values if dim in array.coords else np.arange(array.sizes[dim])
    return [value.item() if isinstance(value, np.generic) else value for value in values]


def position_of(label: object) -> int | str:
    """The position that `Site` accepts for a label: 5 for ``5: John``, ``S2`` for ``S2``."""
    if isinstance(label, int):
        return label
    match = _NUMBERED.match(str(label))
    return int(match[1]) if match else str(label)


def cell_name(info: RunInfo, place: Mapping[str, object]) -> str:
    """The site of a cell as `Site` writes it, after the coordinates that are not part of a site."""
    site = _site(info, place)
    if site is not None:
        return ", ".join([*(f"{dim}={value}" for dim, value in place.items() if dim not in _AXES), site])
    if set(place) == {"layer", "head"}:
        return f"L{place['layer']}H{place['head']}"
    return ", ".join(f"{dim}={value}" for dim, value in place.items()) or "all"


def _site(info: RunInfo, place: Mapping[str, object]) -> str | None:
    indices: dict[str, object] = {axis: place[axis] for axis in _AXES if axis in place}
    for axis in _AXES:
        fixed = info.method.get(_FIXED[axis])
        if axis not in indices and isinstance(fixed, (list, tuple)) and len(fixed) == 1:
            indices[axis] = fixed[0]
    if "pos" in indices:
        indices["pos"] = position_of(indices["pos"])
    try:
        return str(Site(str(info.method["site"]), **indices))  # type: ignore[arg-type] # checked by Site itself
    except (KeyError, TypeError, MechXAIError):
        return None


def places(array: xr.DataArray) -> list[dict[str, object]]:
    """Dim -> coordinate of every cell, last dim fastest; includes the scalar coordinates left by a selection."""
    fixed = {str(dim): value.values.item() for dim, value in array.coords.items() if value.ndim == 0}
    along = [coordinates(array, str(dim)) for dim in array.dims]
    dims = [str(dim) for dim in array.dims]
    return [{**fixed, **dict(zip(dims, place, strict=True))} for place in itertools.product(*along)]


def cells(info: RunInfo, array: xr.DataArray, *, low: xr.DataArray | None, high: xr.DataArray | None) -> list[Cell]:
    """All cells of an array, last dim fastest."""
    missing = np.full(array.size, np.nan)
    lows = missing if low is None else low.values.ravel()
    highs = missing if high is None else high.values.ravel()
    rows = zip(places(array), array.values.ravel(), lows, highs, strict=True)
    return [
        Cell(cell_name(info, place), _label(place), place, float(value), float(bottom), float(top))
        for place, value, bottom, top in rows
    ]


def _label(place: Mapping[str, object]) -> str:
    label = str(place.get("pos", ""))
    return "" if label.lstrip("-").isdecimal() else label


def largest_cells(candidates: list[Cell], n: int, center: float = 0.0) -> list[Cell]:
    """The ``n`` cells farthest from ``center``, farthest first; cells without a value are left out."""
    finite = [cell for cell in candidates if np.isfinite(cell.value)]
    return sorted(finite, key=lambda cell: -abs(cell.value - center))[:n]
