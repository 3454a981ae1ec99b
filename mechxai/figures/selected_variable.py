"""One variable of a result, prepared for drawing: default choice, slices, intervals, and the layout of its dims."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from mechxai.core.errors import ConfigError, unknown
from mechxai.core.result import Result, ResultKind, RunInfo
from mechxai.figures.cells import Cell, cells, coordinates, position_of

# Kind -> the variables to draw first; ``mean``, ``value`` and the others follow.
_PREFERRED: Mapping[ResultKind, tuple[str, ...]] = {
    "patching": ("recovered",),
    "chain_flow": ("recovered",),
    "probes": ("accuracy", "r2"),
}
_FRAMES = ("prompt", "draw", "site", "method", "pos", "neuron", "head")
_ENDS = ("_low", "_high")
_LISTED = 40  # coordinates in an error
MAX_DIMS = 3


@dataclass(frozen=True)
class SelectedVariable:
    """One variable of a result with its intervals, some of its dims held fixed.

    Attributes:
        info: the result's `RunInfo`.
        name: of the variable.
        array: its values; every dim name occurs once.
        low: lower ends of the intervals, with the dims of ``array``.
        high: upper ends of the intervals.
        marks: texts to write into cells (roles of heads), with the dims of ``array``.
        baselines: run name -> mean of its baseline, in the unit of ``array``.
        n_prompts: number of prompts, if the result has a prompt dim.
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
        """Unit of the values."""
        return str(self.array.attrs.get("units", ""))

    @property
    def long_name(self) -> str:
        """Description of the variable."""
        return str(self.array.attrs.get("long_name") or self.name)

    @property
    def center(self) -> float:
        """The value that means no effect.

        The array's attribute ``neutral``; for the metric after an ablation, the mean of the clean run, which is the run
        that was ablated; else 0.
        """
        no_effect = self.baselines.get("clean", 0.0) if self.info.kind == "ablation" else 0.0
        return float(self.array.attrs.get("neutral", no_effect))

    @property
    def dims(self) -> tuple[str, ...]:
        """Dims of the array."""
        return tuple(str(dim) for dim in self.array.dims)

    def cells(self) -> list[Cell]:
        """All cells, last dim fastest."""
        return cells(self.info, self.array, low=self.low, high=self.high)

    def transpose(self, *dims: str) -> "SelectedVariable":
        """The same variable with its dims in this order."""
        return self._with({key: None if part is None else part.transpose(*dims) for key, part in self._parts().items()})

    def at(self, dim: str, index: int | list[int]) -> "SelectedVariable":
        """The slice at one index of a dim, or at several in the given order."""
        return self._with(
            {key: None if part is None else part.isel({dim: index}) for key, part in self._parts().items()}
        )

    def _parts(self) -> dict[str, xr.DataArray | None]:
        return {"array": self.array, "low": self.low, "high": self.high, "marks": self.marks}

    def _with(self, parts: Mapping[str, xr.DataArray | None]) -> "SelectedVariable":
        array = parts["array"]
        if array is None:
            raise ConfigError(f"Variable {self.name!r} has no values")
        return SelectedVariable(
            self.info, self.name, array, parts["low"], parts["high"], parts["marks"], self.baselines, self.n_prompts
        )


def drawable(data: xr.Dataset) -> list[str]:
    """Numeric variables with at least one dim, without the ends of intervals; those with few enough dims first."""
    numeric = [
        str(name) for name, array in data.data_vars.items() if array.dtype.kind in "biuf" and array.ndim and array.size
    ]
    names = [
        name for name in numeric if not any(name.endswith(end) and name.removesuffix(end) in numeric for end in _ENDS)
    ]
    return sorted(names, key=lambda name: data[name].ndim > MAX_DIMS)


def default_variable(result: Result) -> str | None:
    """The variable drawn by default.

    ``recovered`` for patching, ``accuracy`` for probes; else ``mean``, ``value`` or the first that can be drawn.
    """
    data = result.data
    preferred = [name for name in _PREFERRED.get(result.info.kind, ()) if name in data and _drawn_alone(result, name)]
    for name in [*preferred, "mean", "value"]:
        if name in data and data[name].dtype.kind in "biuf":
            return name
    names = drawable(data)
    return names[0] if names else None


def _drawn_alone(result: Result, name: str) -> bool:
    """Probes with a single number have nothing to draw in it."""
    return result.info.kind != "probes" or bool(result.data[name].ndim)


def select_variable(result: Result, name: str, select: Mapping[str, object] | None = None) -> SelectedVariable:
    """One variable of a result, with some of its dims held fixed.

    Args:
        result: of any kind.
        name: of a numeric variable.
        select: dim -> coordinate; a position by its label or its number.

    Raises:
        ConfigError: the variable does not exist or has no numbers, or it lacks a selected dim or coordinate.
    """
    data = result.data
    if name not in data:
        raise ConfigError(unknown("variable", name, map(str, data)))
    array = data[name]
    if array.dtype.kind not in "biuf":
        raise ConfigError(f"Variable {name!r} holds texts ({array.dtype}), not numbers", allowed=drawable(data))
    parts = [data.get(name + end) for end in _ENDS]
    low, high = (part if part is not None and part.dims == array.dims else None for part in parts)
    role = data.get("role")
    marks = role.transpose(*array.dims) if role is not None and set(role.dims) == set(array.dims) else None
    single_site = array.sizes.get("site") == 1 and array.ndim > 1 and "site" in array.coords
    fixed = {**({"site": array.coords["site"].values[0]} if single_site else {}), **(select or {})}
    values, *others = [
        None if part is None else _slice(_distinct_dims(part), fixed) for part in (array, low, high, marks)
    ]
    if values is None:
        raise ConfigError(f"Variable {name!r} has no values")
    baselines = _baselines(data) if name == "value" else {}
    n_prompts = int(data.sizes["prompt"]) if "prompt" in data.sizes else None
    low, high, marks = others
    return SelectedVariable(result.info, name, values, low, high, marks, baselines=baselines, n_prompts=n_prompts)


def heatmap_dims(dims: tuple[str, ...]) -> tuple[str, str]:
    """The vertical and the horizontal dim of a heatmap: layers upward, positions to the right."""
    if "layer" in dims:
        return "layer", next(dim for dim in dims if dim != "layer")
    return (dims[1], dims[0]) if dims[0] == "pos" else (dims[0], dims[1])


def frame_dim(dims: tuple[str, ...]) -> str:
    """The one of three dims that becomes the slider."""
    return next((dim for dim in _FRAMES if dim in dims), next(dim for dim in dims if dim != "layer"))


def _distinct_dims(array: xr.DataArray) -> xr.DataArray:
    """The array with a coordinate for every dim; a dim name that occurs twice gets a number the second time."""
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


def _slice(array: xr.DataArray, select: Mapping[str, object]) -> xr.DataArray:
    for dim, coordinate in select.items():
        if dim not in array.dims:
            raise ConfigError(
                f"select={{{dim!r}: {coordinate!r}}}: {array.name!r} has no dim {dim!r}", allowed=list(array.dims)
            )
        along = coordinates(array, dim)
        indices = [at for at, value in enumerate(along) if value == coordinate]
        indices = indices or [at for at, value in enumerate(along) if dim == "pos" and position_of(value) == coordinate]
        if not indices:
            raise ConfigError(
                f"select={{{dim!r}: {coordinate!r}}}: {dim!r} has no such coordinate", allowed=along[:_LISTED]
            )
        array = array.isel({dim: indices[0]})
    return array


def prompt_index(prompts: list[object], prompt: object) -> int:
    """The index of a prompt's coordinate.

    Raises:
        ConfigError: the prompt does not exist.
    """
    if prompt not in prompts:
        raise ConfigError(f"Prompt {prompt!r} does not exist", allowed=prompts[:_LISTED])
    return prompts.index(prompt)


def _baselines(data: xr.Dataset) -> dict[str, float]:
    arrays = {run: data.get(f"baseline_{run}") for run in ("clean", "corrupted")}
    return {run: float(array.mean()) for run, array in arrays.items() if array is not None and np.isfinite(array).any()}


def too_many_dims(name: str, array: xr.DataArray) -> ConfigError:
    """The error for a variable with more dims than a figure can show."""
    example = {str(array.dims[-2]): coordinates(array, str(array.dims[-2]))[0]}
    return ConfigError(
        f"{name!r} has {array.ndim} dims {tuple(array.dims)}: a figure shows at most {MAX_DIMS}",
        fix=f"Hold {array.ndim - MAX_DIMS} or more of them fixed, for example plot(result, select={example})",
    )
