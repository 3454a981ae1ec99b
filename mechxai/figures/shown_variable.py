"""Which variable of a result is shown, and which of its dims lies where."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from mechxai.core.errors import ConfigError, nearest
from mechxai.core.result import Result, RunInfo
from mechxai.figures.cells import Cell, cells, coordinates, position_of

_RECOVERED_FIRST = ("activation_patching", "causal_tracing", "chain_flow")
_FRAMES = ("prompt", "draw", "site", "method", "pos", "neuron", "head")
_ENDS = ("_low", "_high")
MAX_DIMS = 3


@dataclass(frozen=True)
class Shown:
    """One variable of a result, ready to draw.

    Attributes:
        info: how it came about.
        name: of the variable.
        array: its values; every dim name occurs once.
        low: lower ends of the intervals, laid out like ``array``.
        high: upper ends.
        marks: texts to write into cells (roles of heads), laid out like ``array``.
        baselines: name -> mean of a baseline in the same unit.
        n_prompts: prompts behind the numbers, when the result says.
    """

    info: RunInfo
    name: str
    array: xr.DataArray
    low: xr.DataArray | None
    high: xr.DataArray | None
    marks: xr.DataArray | None
    baselines: Mapping[str, float]
    n_prompts: int | None

    @property
    def unit(self) -> str:
        """Of the values."""
        return str(self.array.attrs.get("units", ""))

    @property
    def long_name(self) -> str:
        """Of the variable."""
        return str(self.array.attrs.get("long_name") or self.name)

    @property
    def center(self) -> float:
        """The value at which nothing happened.

        The array's attribute ``neutral``; for the metric after an ablation, the mean of the clean run, which is what
        was ablated; else 0.
        """
        untouched = self.baselines.get("clean", 0.0) if self.info.method.get("name") == "ablation" else 0.0
        return float(self.array.attrs.get("neutral", untouched))

    @property
    def dims(self) -> tuple[str, ...]:
        """Of the array."""
        return tuple(str(dim) for dim in self.array.dims)

    def cells(self) -> list[Cell]:
        """Every cell, last dim fastest."""
        return cells(self.info, self.array, low=self.low, high=self.high)

    def arranged(self, *dims: str) -> "Shown":
        """The same with its dims in this order."""
        order = {key: None if part is None else part.transpose(*dims) for key, part in self._parts().items()}
        return self._with(order)

    def at(self, dim: str, index: int | list[int]) -> "Shown":
        """One slice along a dim; or several, in this order."""
        return self._with(
            {key: None if part is None else part.isel({dim: index}) for key, part in self._parts().items()}
        )

    def _parts(self) -> dict[str, xr.DataArray | None]:
        return {"array": self.array, "low": self.low, "high": self.high, "marks": self.marks}

    def _with(self, parts: Mapping[str, xr.DataArray | None]) -> "Shown":
        array = parts["array"]
        if array is None:
            raise ConfigError(f"Variable {self.name!r} has no values")
        return Shown(
            self.info, self.name, array, parts["low"], parts["high"], parts["marks"], self.baselines, self.n_prompts
        )


def drawable(data: xr.Dataset) -> list[str]:
    """Variables with numbers along at least one dim, intervals' ends left out; what fits a figure comes first."""
    numeric = [
        str(name) for name, array in data.data_vars.items() if array.dtype.kind in "biuf" and array.ndim and array.size
    ]
    middles = [
        name for name in numeric if not any(name.endswith(end) and name.removesuffix(end) in numeric for end in _ENDS)
    ]
    return sorted(middles, key=lambda name: data[name].ndim > MAX_DIMS)


def default_variable(result: Result) -> str | None:
    """``recovered`` where clean is beside corrupted, ``accuracy`` of probes; else ``mean``, ``value``, the first."""
    wanted = ["recovered"] if result.info.method.get("name") in _RECOVERED_FIRST else []
    if result.info.method.get("name") == "linear_probes":
        wanted += [name for name in ("accuracy", "r2") if name in result.data and result.data[name].ndim]
    for name in [*wanted, "mean", "value"]:
        if name in result.data and result.data[name].dtype.kind in "biuf":
            return name
    found = drawable(result.data)
    return found[0] if found else None


def shown(result: Result, variable: str, select: Mapping[str, object] | None = None) -> Shown:
    """One variable of a result, some of its dims held fixed.

    Args:
        result: any.
        variable: name of a numeric variable.
        select: dim -> coordinate; a position by its label or its number.

    Raises:
        ConfigError: no such variable, one without numbers, or a coordinate that it lacks.
    """
    data = result.data
    if variable not in data:
        raise ConfigError(
            f"Variable {variable!r} was asked",
            got="the result has none of that name",
            allowed=nearest(variable, map(str, data)),
        )
    array = data[variable]
    if array.dtype.kind not in "biuf":
        raise ConfigError(
            f"Variable {variable!r} was asked", got=f"texts ({array.dtype}), not numbers", allowed=drawable(data)
        )
    parts = [data.get(variable + end) for end in _ENDS]
    low, high = (part if part is not None and part.dims == array.dims else None for part in parts)
    role = data.get("role")
    marks = role.transpose(*array.dims) if role is not None and set(role.dims) == set(array.dims) else None
    one_site = array.sizes.get("site") == 1 and array.ndim > 1 and "site" in array.coords
    alone = {"site": array.coords["site"].values[0]} if one_site else {}
    fixed = {**alone, **(select or {})}
    chosen = [None if part is None else _selected(_distinct(part), fixed) for part in (array, low, high, marks)]
    values = chosen[0]
    if values is None:
        raise ConfigError(f"Variable {variable!r} has no values")
    same_unit = variable == "value"
    return Shown(
        result.info,
        variable,
        values,
        chosen[1],
        chosen[2],
        chosen[3],
        _baselines(data) if same_unit else {},
        _prompts(data),
    )


def heatmap_dims(dims: tuple[str, ...]) -> tuple[str, str]:
    """Which dim runs upward and which to the right: layers up, positions to the right."""
    if "layer" in dims:
        return "layer", next(dim for dim in dims if dim != "layer")
    return (dims[1], dims[0]) if dims[0] == "pos" else (dims[0], dims[1])


def frame_dim(dims: tuple[str, ...]) -> str:
    """Which of three dims becomes the slider."""
    return next((dim for dim in _FRAMES if dim in dims), next(dim for dim in dims if dim != "layer"))


def _distinct(array: xr.DataArray) -> xr.DataArray:
    """The array with a coordinate for every dim; a matrix over one dim twice gets a second name for the second."""
    if len(set(array.dims)) == len(array.dims):
        bare = [dim for dim in array.dims if dim not in array.coords]
        return array.reset_coords(drop=True).assign_coords({dim: np.arange(array.sizes[dim]) for dim in bare})
    names = [
        f"{dim}_{array.dims[:at].count(dim) + 1}" if dim in array.dims[:at] else str(dim)
        for at, dim in enumerate(array.dims)
    ]
    along = {name: array.coords[dim].values for name, dim in zip(names, array.dims, strict=True) if dim in array.coords}
    return xr.DataArray(
        array.values, dims=names, coords={name: (name, values) for name, values in along.items()}, attrs=array.attrs
    )


def _selected(array: xr.DataArray, select: Mapping[str, object]) -> xr.DataArray:
    for dim, wanted in select.items():
        if dim not in array.dims:
            raise ConfigError(
                f"select={{{dim!r}: {wanted!r}}} was asked",
                got=f"no such dim in {array.name!r}",
                allowed=list(array.dims),
            )
        along = coordinates(array, dim)
        same = [at for at, value in enumerate(along) if value == wanted]
        same = same or [at for at, value in enumerate(along) if dim == "pos" and position_of(value) == wanted]
        if not same:
            raise ConfigError(f"select={{{dim!r}: {wanted!r}}} was asked", got="no such coordinate", allowed=along[:40])
        array = array.isel({dim: same[0]})
    return array


def _baselines(data: xr.Dataset) -> dict[str, float]:
    found = {run: data.get(f"baseline_{run}") for run in ("clean", "corrupted")}
    return {run: float(array.mean()) for run, array in found.items() if array is not None and np.isfinite(array).any()}


def _prompts(data: xr.Dataset) -> int | None:
    return int(data.sizes["prompt"]) if "prompt" in data.sizes else None


def too_many(name: str, array: xr.DataArray) -> ConfigError:
    """The error for a variable with more dims than a figure has."""
    example = {str(array.dims[-2]): coordinates(array, str(array.dims[-2]))[0]}
    return ConfigError(
        f"A figure of {name!r} was asked",
        got=f"{array.ndim} dims {tuple(array.dims)}",
        allowed=f"up to {MAX_DIMS}",
        fix=f"hold {array.ndim - MAX_DIMS} or more of them fixed, for example plot(result, select={example})",
    )
