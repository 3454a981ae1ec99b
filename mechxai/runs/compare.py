"""Two runs side by side: which settings differ, by how much the values differ, and their figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mechxai.core.result import Result
from mechxai.core.statistics import known_mean
from mechxai.figures.panels import headline_variable
from mechxai.report.page import report
from mechxai.runs.query import RunRecord

Rows = list[dict[str, object]]
_COMPARED = ("experiment", "method", "model", "task", "seed", "versions", "commit")


def settings_that_differ(one: RunRecord, other: RunRecord) -> Rows:
    """A row per setting: of method, model, task, seed and versions."""
    first, second = (_flat({key: run.manifest.get(key) for key in _COMPARED}) for run in (one, other))
    names = dict.fromkeys([*first, *second])
    return [
        {"setting": name, "first": str(first.get(name, "-")), "second": str(second.get(name, "-"))}
        for name in names
        if first.get(name) != second.get(name)
    ]


def values_that_differ(one: Result, other: Result) -> Rows:
    """A row per number or array that both have: both means, and the largest difference where cells have partners."""
    rows: Rows = []
    for name in one.data.data_vars:
        if name not in other.data or one.data[name].dtype.kind not in "biuf":
            continue
        first, second = one.data[name], other.data[name]
        apart = _apart(one, other, str(name))
        gap = None if apart else _gap(first, second)
        row: dict[str, object] = {"value": str(name), "first, mean": _mean(first), "second, mean": _mean(second)}
        largest = "" if gap is None or not np.isfinite(gap).any() else float(np.nanmax(np.abs(gap)))
        rows.append({**row, "largest difference": largest, "where": apart if gap is None else _where(gap)})
    return rows


def difference(one: Result, other: Result) -> Result | None:
    """The first less the second, of the variable that figures show; None where cells have no partners."""
    name = headline_variable(one)
    if name is None or name not in other.data:
        return None
    if not one.data[name].ndim or _apart(one, other, name):
        return None
    gap = _gap(one.data[name], other.data[name])
    gap.attrs = {**one.data[name].attrs, "long_name": f"{one.data[name].attrs['long_name']}: first less second"}
    return Result(xr.Dataset({"value": gap}), one.info)


def write_comparison(runs: Sequence[RunRecord], path: Path, tables: Mapping[str, Rows]) -> Path:
    """One page with both figures, that of the difference, and the tables."""
    one, other = (run.result() for run in runs)
    shown = {f"first: {runs[0].facts['run']}": one, f"second: {runs[1].facts['run']}": other}
    gap = difference(one, other)
    named = shown | ({"first less second": gap} if gap is not None else {})
    return report(named, path, title=f"{runs[0].facts['run']} and {runs[1].facts['run']}", tables=tables)


def _apart(one: Result, other: Result, name: str) -> str:
    """Why the cells of a variable have no partners; empty where they have."""
    first, second = one.data[name], other.data[name]
    if first.dims != second.dims:
        return f"over {', '.join(map(str, first.dims))} and over {', '.join(map(str, second.dims))}"
    if "prompt" in first.dims and one.info.task != other.info.task:
        return "other prompts"
    sizes = [
        f"{first.sizes[dim]} and {second.sizes[dim]} {dim}"
        for dim in first.dims
        if first.sizes[dim] != second.sizes[dim]
    ]
    return ", ".join(sizes)


def _gap(first: xr.DataArray, second: xr.DataArray) -> xr.DataArray:
    return first.astype(float) - second.values.astype(float)


def _mean(array: xr.DataArray) -> float:
    return float(known_mean(array.values.astype(float).ravel()))


def _where(gap: xr.DataArray) -> str:
    if not gap.ndim or not np.isfinite(gap).any():
        return ""
    place = np.unravel_index(int(np.nanargmax(np.abs(gap.values))), gap.shape)
    return ", ".join(
        f"{dim}={gap[dim].values[at] if dim in gap.coords else at}" for dim, at in zip(gap.dims, place, strict=True)
    )


def _flat(node: Any, prefix: str = "") -> dict[str, object]:
    if not isinstance(node, Mapping):
        return {prefix: node}
    found: dict[str, object] = {}
    for key, value in node.items():
        found |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found
