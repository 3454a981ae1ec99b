"""What a cell of a result is called, and which cells stand out."""

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
_FIXED = {"layer": "layers", "head": "heads", "pos": "pos", "neuron": "neurons"}
_NUMBERED = re.compile(r"(-?\d+)(?::|$)")


@dataclass(frozen=True)
class Cell:
    """One number of a result.

    Attributes:
        name: the site (``blocks.9.z[head=6]``), or its coordinates where it is none.
        label: the position's label (``5: John``, ``S2``); empty where it is only a number.
        place: dim -> coordinate.
        value: in the variable's unit.
        low: lower end of the interval; NaN without one.
        high: upper end.
    """

    name: str
    label: str
    place: Mapping[str, object]
    value: float
    low: float
    high: float


def coordinates(array: xr.DataArray, dim: str) -> list[object]:
    """The coordinates along a dim as plain values; 0, 1, … where it has none."""
    values = array.coords[dim].values if dim in array.coords else np.arange(array.sizes[dim])
    return [value.item() if isinstance(value, np.generic) else value for value in values]


def position_of(label: object) -> int | str:
    """What a position's label means to `Site`: 5 for ``5: John``, ``S2`` for ``S2``."""
    if isinstance(label, int):
        return label
    found = _NUMBERED.match(str(label))
    return int(found[1]) if found else str(label)


def cell_name(info: RunInfo, place: Mapping[str, object]) -> str:
    """The site of a cell as `Site` writes it, after any coordinate that is no part of a site."""
    site = _site(info, place)
    if site is not None:
        return ", ".join([*(f"{dim}={value}" for dim, value in place.items() if dim not in _AXES), site])
    if set(place) == {"layer", "head"}:
        return f"L{place['layer']}H{place['head']}"
    return ", ".join(f"{dim}={value}" for dim, value in place.items()) or "all"


def _site(info: RunInfo, place: Mapping[str, object]) -> str | None:
    found: dict[str, object] = {axis: place[axis] for axis in _AXES if axis in place}
    for axis in _AXES:
        chosen = info.method.get(_FIXED[axis])
        if axis not in found and isinstance(chosen, (list, tuple)) and len(chosen) == 1:
            found[axis] = chosen[0]
    if "pos" in found:
        found["pos"] = position_of(found["pos"])
    try:
        return str(Site(str(info.method["site"]), **found))  # type: ignore[arg-type] # checked by Site itself
    except (KeyError, TypeError, MechXAIError):
        return None


def places(array: xr.DataArray) -> list[dict[str, object]]:
    """Dim -> coordinate of every cell, last dim fastest; fixed coordinates of a selection included."""
    fixed = {str(dim): value.values.item() for dim, value in array.coords.items() if value.ndim == 0}
    along = [coordinates(array, str(dim)) for dim in array.dims]
    dims = [str(dim) for dim in array.dims]
    return [{**fixed, **dict(zip(dims, place, strict=True))} for place in itertools.product(*along)]


def cells(info: RunInfo, array: xr.DataArray, *, low: xr.DataArray | None, high: xr.DataArray | None) -> list[Cell]:
    """Every cell of an array, last dim fastest."""
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


def largest(found: list[Cell], n: int, center: float = 0.0) -> list[Cell]:
    """The ``n`` cells farthest from ``center``, farthest first; those without a value left out."""
    finite = [cell for cell in found if np.isfinite(cell.value)]
    return sorted(finite, key=lambda cell: -abs(cell.value - center))[:n]
