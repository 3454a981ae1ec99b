"""Two runs side by side: the settings that differ, the size of the differences, and both figures."""

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


def settings_that_differ(run: RunRecord, other: RunRecord) -> Rows:
    """A row per differing setting of method, model, task, seed and versions."""
    first, second = (_flat({key: record.manifest.get(key) for key in _COMPARED}) for record in (run, other))
    names = dict.fromkeys([*first, *second])
    return [
        {"setting": name, "first": str(first.get(name, "-")), "second": str(second.get(name, "-"))}
        for name in names
        if first.get(name) != second.get(name)
    ]


def values_that_differ(result: Result, other: Result) -> Rows:
    """A row per array that both results have: both means, and the largest difference where cells correspond."""
    rows: Rows = []
    for name in result.data.data_vars:
        if name not in other.data or result.data[name].dtype.kind not in "biuf":
            continue
        first, second = result.data[name], other.data[name]
        mismatch = _mismatch(result, other, str(name))
        gap = None if mismatch else _gap(first, second)
        row: dict[str, object] = {"value": str(name), "first, mean": _mean(first), "second, mean": _mean(second)}
        largest = "" if gap is None or not np.isfinite(gap).any() else float(np.nanmax(np.abs(gap)))
        rows.append({**row, "largest difference": largest, "where": mismatch if gap is None else _where(gap)})
    return rows


def difference(result: Result, other: Result) -> Result | None:
    """The first minus the second, of the variable that figures show; None where cells do not correspond."""
    name = headline_variable(result)
    if name is None or name not in other.data:
        return None
    if not result.data[name].ndim or _mismatch(result, other, name):
        return None
    gap = _gap(result.data[name], other.data[name])
    gap.attrs = {**result.data[name].attrs, "long_name": f"{result.data[name].attrs['long_name']}: first minus second"}
    return Result(xr.Dataset({"value": gap}), result.info)


def write_comparison(runs: Sequence[RunRecord], path: Path, tables: Mapping[str, Rows]) -> Path:
    """Writes one page with both figures, the figure of their difference, and the tables."""
    result, other = (run.result() for run in runs)
    figures = {f"first: {runs[0].facts['run']}": result, f"second: {runs[1].facts['run']}": other}
    gap = difference(result, other)
    named = figures | ({"first minus second": gap} if gap is not None else {})
    return report(named, path, title=f"{runs[0].facts['run']} and {runs[1].facts['run']}", tables=tables)


def _mismatch(result: Result, other: Result, name: str) -> str:
    """Why the cells of a variable do not correspond; empty where they do."""
    first, second = result.data[name], other.data[name]
    if first.dims != second.dims:
        return f"over {', '.join(map(str, first.dims))} and over {', '.join(map(str, second.dims))}"
    if "prompt" in first.dims and result.info.task != other.info.task:
        return "the prompts differ"
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
    flat: dict[str, object] = {}
    for key, value in node.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
