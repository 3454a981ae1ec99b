"""The table of a sweep: a row for every method of every job, what sets the job apart, and what came of it."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from mechxai.core.files import atomic_write
from mechxai.core.result import Result
from mechxai.figures.strongest import strongest
from mechxai.figures.text import shortened
from mechxai.report.page import report
from mechxai.sweeps.record import FINISHED, JobRecord

DAMAGED = "damaged"
TABLE, PAGE = "results.parquet", "sweep.html"
_SHORT = 80  # characters of an error in a cell
_BASELINES = ("baseline_clean", "baseline_corrupted")


@dataclass(frozen=True)
class Row:
    """One method of one job.

    Attributes:
        job: its number.
        varied: the overrides in which the jobs of the sweep differ.
        status: of the job.
        label: of the method.
        headline: the strongest cell, in words.
        values: the result's single numbers, and the strongest cell's.
        folder: of the results.
        error: why the job failed.
    """

    job: int
    varied: Mapping[str, str]
    status: str
    label: str = ""
    headline: str = ""
    values: Mapping[str, object] = field(default_factory=dict[str, object])
    folder: str = ""
    error: str = ""

    def shown(self) -> dict[str, object]:
        """As the terminal and the page show it."""
        found = self.headline or shortened(self.error, _SHORT)
        return {"job": str(self.job), **self.varied, "of": self.label, "status": self.status, "found": found}

    def flat(self) -> dict[str, object]:
        """As the file holds it."""
        own = {"job": self.job, "status": self.status, "label": self.label, "folder": self.folder, "error": self.error}
        return {**own, **self.varied, **self.values}


def summary_rows(found: Sequence[JobRecord]) -> list[Row]:
    """The rows of a sweep, in the order of its jobs; a row without a method for jobs that did not finish."""
    rows = []
    varied = _varied(found)
    for record, own in zip(found, varied, strict=True):
        if record.status != FINISHED or not record.folders:
            rows.append(Row(record.number, own, record.status, error=record.error))
        for label, folder in record.folders.items():
            rows.append(_with_result(Row(record.number, own, record.status, label, folder=folder)))
    return rows


def write_summary(folder: Path, found: Sequence[JobRecord], rows: Sequence[Row]) -> list[Path]:
    """Writes ``results.parquet`` (pandas and pyarrow do) and ``sweep.html`` into the sweep's folder."""
    table = pd.DataFrame([row.flat() for row in rows])
    for key in dict.fromkeys(key for row in rows for key in row.varied):
        with contextlib.suppress(ValueError):  # seeds and sizes are numbers, names are not
            table[key] = pd.to_numeric(table[key])
    path = folder / TABLE
    with atomic_write(path) as part:
        table.to_parquet(part, index=False)
    jobs = [row.shown() for row in rows]
    failed = [{"job": row.job, "error": row.error} for row in rows if row.error]
    tables = {f"{len(found)} jobs": jobs} | ({"Failed": failed} if failed else {})
    return [path, report([], folder / PAGE, title=f"Sweep {folder.name}", tables=tables)]


def _varied(found: Sequence[JobRecord]) -> list[dict[str, str]]:
    """Of each job, the overrides that are not those of all."""
    pairs = [dict(_pair(override) for override in record.overrides) for record in found]
    keys = list(dict.fromkeys(key for own in pairs for key in own))
    differ = [key for key in keys if len({own.get(key) for own in pairs}) > 1]
    return [{key: own.get(key, "") for key in differ} for own in pairs]


def _pair(override: str) -> tuple[str, str]:
    key, _, value = override.lstrip("+").partition("=")
    return key, value


def _with_result(row: Row) -> Row:
    """The row with what its folder holds."""
    try:
        return _read(row)
    except Exception as error:  # noqa: BLE001 - one damaged file must not cost the table
        return replace(row, status=DAMAGED, error=f"{type(error).__name__}: {error}")


def _read(row: Row) -> Row:
    result = Result.load(Path(row.folder) / "result.nc")
    data = result.data
    single = {str(name): own for name, own in data.data_vars.items() if not own.ndim and own.dtype.kind in "biuf"}
    values: dict[str, object] = {name: float(own) for name, own in single.items()}
    values |= {f"mean_{name}": float(np.nanmean(data[name])) for name in _BASELINES if name in data}
    values |= {key: float(value) for key, value in result.info.cost.items()}
    found = strongest(result)
    if found is None:
        return replace(row, values=values)
    values |= {"strongest": found.cell.value, "strongest_at": found.cell.name, "strongest_of": found.variable}
    return replace(row, headline=found.text, values=values)
