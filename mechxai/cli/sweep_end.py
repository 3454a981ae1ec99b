"""The end of a sweep on the terminal: its table, and the jobs that did not finish."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from mechxai.cli import console
from mechxai.core.files import disk_error
from mechxai.figures.text import shortened
from mechxai.sweeps.record import FAILED, FINISHED, INTERRUPTED, WAITING, JobRecord, records

_SHORT = 400  # characters of an error in a list
_LISTED = 20  # jobs that were not started, by name


def end(folder: Path, command: str) -> int:
    """Shows and writes the table of a sweep, and what did not finish once more.

    Args:
        folder: of the sweep.
        command: that started it, and goes on with it.

    Returns:
        The exit code.
    """
    from mechxai.sweeps.summary import summary_rows, write_summary  # noqa: PLC0415 - heavy

    found = records(folder)
    if not found:
        Console(stderr=True).print("no job was started: see above", style="bold red")
        return 1
    rows = summary_rows(found)
    _show(found, [row.shown() for row in rows])
    unkept = None
    try:
        for path in write_summary(folder, found, rows):
            console.show(f"{path.suffix.removeprefix('.')}: {path}")
    except OSError as error:  # a full disk must not cost the list of what failed
        unkept = disk_error(error)
        if unkept is None:
            raise
    finished = all(record.status == FINISHED for record in found)
    if not finished:
        _tell_missed(folder, found, command)
    if unkept is not None:
        console.show_error(unkept)
    return 0 if finished and unkept is None else 1


def _show(found: Sequence[JobRecord], table: Sequence[Mapping[str, object]]) -> None:
    """The table; where every job has finished, without saying so of each, as narrow terminals have no room for it."""
    jobs = "1 job" if len(found) == 1 else f"{len(found)} jobs"
    if all(row["status"] == FINISHED for row in table):
        jobs = f"{jobs}, finished"
        table = [{key: value for key, value in row.items() if key != "status"} for row in table]
    console.show({"title": f"Sweep of {jobs}", "rows": table})


def _tell_missed(folder: Path, found: Sequence[JobRecord], command: str) -> None:
    stderr = Console(stderr=True, soft_wrap=True, highlight=False)
    missed = [record for record in found if record.status not in (FINISHED, WAITING)]
    waiting = [record for record in found if record.status == WAITING]
    if missed:
        stderr.print(f"{len(missed)} of {len(found)} jobs did not finish:", style="bold red")
    for record in missed:
        said = record.error or f"it died ({record.where}), or still runs"
        stderr.print(f"  job {record.number}: {shortened(said, _SHORT)}", markup=False)
        stderr.print(f"    {' '.join(record.overrides)}", markup=False)
        if record.trace:
            stderr.print(f"    traceback: {folder / 'jobs' / str(record.number) / 'job.json'}", markup=False)
    if waiting:
        stderr.print(f"{len(waiting)} of {len(found)} jobs were not started:", style="bold red")
    for record in waiting[:_LISTED]:
        stderr.print(f"  job {record.number}: {' '.join(record.overrides)}", markup=False)
    if len(waiting) > _LISTED:
        stderr.print(f"  and {len(waiting) - _LISTED} more, in {folder / 'results.parquet'}", markup=False)
    refused = not waiting and all(
        record.status == FAILED and not record.trace and record.error != INTERRUPTED for record in missed
    )
    first = "once that is mended, " if refused else ""
    stderr.print(f"what is finished is kept; {first}the same command runs the others:", style="bold")
    stderr.print(f"  {command}", markup=False)
