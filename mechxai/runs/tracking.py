"""Sends a run to its tracker: inputs, numbers, figure, table and result file."""

import contextlib

import numpy as np

from mechxai.core.errors import MechXAIError
from mechxai.core.result import Result
from mechxai.core.secrets import masked
from mechxai.figures.cells import coordinates
from mechxai.figures.panels import headline_variable
from mechxai.figures.plot import plot
from mechxai.figures.selected_variable import SelectedVariable, select_variable
from mechxai.runs.folder import RunFolder
from mechxai.runs.provenance import model_record, task_record
from mechxai.runs.study import Study
from mechxai.tracking.tracker import NullTracker, SafeTracker

MAX_ROWS = 2000  # of a table: the cells farthest from no effect
_BASELINES = ("baseline_clean", "baseline_corrupted", "noise_floor")


def declare(tracker: SafeTracker, study: Study) -> None:
    """Sends the inputs of a study: the model, without its weights, and the prompts."""
    if isinstance(tracker.inner, NullTracker):
        return
    model = tracker.attempt("input model", lambda: model_record(study.model))
    if model is not None:
        tracker.used(masked(model[0], study.masks), "model", masked(model[1], study.masks))
    declared: set[str] = set()
    for label in study.methods:
        task = tracker.attempt("input task", lambda label=label: task_record(study.model, study.prompts(label)))
        if task is not None and task[0] not in declared:
            declared.add(task[0])
            tracker.used(task[0], "task", masked(task[1], study.masks))


def track(tracker: SafeTracker, study: Study, label: str, *, result: Result, folder: RunFolder) -> None:
    """Sends numbers, figure, table and file of one method's result.

    The strongest cell of the job's first method has the same name in the summary of all jobs, so that jobs can be
    compared and a sweep can optimise it.
    """
    if isinstance(tracker.inner, NullTracker):
        return
    numbers = {f"{label}/{key}": value for key, value in _numbers(result).items()}
    tracker.metrics(numbers)
    tracker.summary({**numbers, f"{label}/folder": masked(str(folder.path), study.masks)})
    with contextlib.suppress(MechXAIError):
        tracker.figure(label, plot(result))
    tracker.attempt(f"table {label}", lambda: _send_table(tracker, study, label, result=result))
    tracker.artifact(folder.result, name=folder.path.name, kind="result")


def _numbers(result: Result) -> dict[str, float]:
    numbers = {key: float(value) for key, value in result.info.cost.items()}
    for name in ("recovered", "effect"):
        if name in result.data:
            numbers[f"max_{name}"] = float(np.nanmax(np.abs(result.data[name].values)))
    for name in _BASELINES:
        if name in result.data:
            numbers[name] = float(result.data[name].mean())
    return numbers


def _send_table(tracker: SafeTracker, study: Study, label: str, *, result: Result) -> None:
    """Sends the strongest cell and the table of the variable that the figure shows."""
    name = headline_variable(result)
    if name is None:
        return
    chosen = select_variable(result, name)
    columns, rows = cell_rows(chosen)
    summary: dict[str, object] = {}
    if rows and label == next(iter(study.methods)):
        strongest = max(rows, key=lambda row: abs(row[chosen.array.ndim] - chosen.center))  # type: ignore[operator] # a number
        summary |= {"strongest": strongest[chosen.array.ndim], "strongest_of": name, "strongest_unit": chosen.unit}
    if len(rows) < chosen.array.size:
        summary[f"{label}/table_rows"] = (
            f"{len(rows):,} of {chosen.array.size:,} cells of {name}, those farthest from {chosen.center:g}; "
            "all of them are in the result's file"
        )
    tracker.summary(summary)
    tracker.table(f"{label}/table", columns, rows)


def cell_rows(chosen: SelectedVariable, most: int = MAX_ROWS) -> tuple[list[str], list[list[object]]]:
    """A variable in long form: a row per cell, its coordinates first, then its value, and its interval if it has one.

    Of more than ``most`` cells those farthest from no effect, in their own order.
    """
    array = chosen.array
    flat = array.values.astype(float).ravel()
    finite = np.flatnonzero(np.isfinite(flat))
    if len(finite) > most:
        farthest = np.argsort(-np.abs(flat[finite] - chosen.center), kind="stable")[:most]
        finite = np.sort(finite[farthest])
    dims = [str(dim) for dim in array.dims]
    along = [coordinates(array, dim) for dim in dims]
    numbers = {"value": flat}
    if chosen.low is not None and chosen.high is not None:
        numbers |= {"low": chosen.low.values.astype(float).ravel(), "high": chosen.high.values.astype(float).ravel()}
    rows: list[list[object]] = []
    for at in finite:
        place = np.unravel_index(at, array.shape)
        coordinate_row: list[object] = [values[index] for values, index in zip(along, place, strict=True)]
        rows.append([*coordinate_row, *(float(values[at]) for values in numbers.values())])
    return [*dims, *numbers], rows
