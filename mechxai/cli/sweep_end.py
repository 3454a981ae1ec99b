"""The end of a sweep on the terminal: its table, and the jobs that did not finish."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mechxai.cli.console import FAILED, OK, error_stream, show, show_error
from mechxai.core.files import disk_error
from mechxai.figures.text import shortened
from mechxai.sweeps import record as records
from mechxai.sweeps.record import JobRecord, load_records

_ERROR_LENGTH = 400  # characters of an error in a list
_LISTED = 20  # jobs that were not started, by name


def show_sweep_end(folder: Path, command: str) -> int:
    """Shows and writes the table of a sweep, then lists the jobs that did not finish.

    Args:
        folder: of the sweep.
        command: that started it, and goes on with it.

    Returns:
        The exit code.
    """
    from mechxai.sweeps.summary import summary_rows, write_summary  # noqa: PLC0415 - heavy

    jobs = load_records(folder)
    if not jobs:
        error_stream().print("no job was started: see above", style="bold red")
        return FAILED
    rows = summary_rows(jobs)
    _show_table(jobs, [row.shown() for row in rows])
    write_error = None
    try:
        for path in write_summary(folder, jobs, rows):
            show(f"{path.suffix.removeprefix('.')}: {path}")
    except OSError as error:  # a full disk must not cost the list of failures
        write_error = disk_error(error)
        if write_error is None:
            raise
    finished = all(job.status == records.FINISHED for job in jobs)
    if not finished:
        _list_unfinished(folder, jobs, command)
    if write_error is not None:
        show_error(write_error)
    return OK if finished and write_error is None else FAILED


def _show_table(jobs: Sequence[JobRecord], table: Sequence[Mapping[str, object]]) -> None:
    """Shows the table; without the status column where every job finished, since narrow terminals need the room."""
    title = "1 job" if len(jobs) == 1 else f"{len(jobs)} jobs"
    if all(row["status"] == records.FINISHED for row in table):
        title = f"{title}, finished"
        table = [{key: value for key, value in row.items() if key != "status"} for row in table]
    show({"title": f"Sweep of {title}", "rows": table})


def _list_unfinished(folder: Path, jobs: Sequence[JobRecord], command: str) -> None:
    stderr = error_stream()
    missed = [job for job in jobs if job.status not in (records.FINISHED, records.WAITING)]
    waiting = [job for job in jobs if job.status == records.WAITING]
    if missed:
        stderr.print(f"{len(missed)} of {len(jobs)} jobs did not finish:", style="bold red")
    for job in missed:
        reason = job.error or f"it died ({job.where}), or still runs"
        stderr.print(f"  job {job.number}: {shortened(reason, _ERROR_LENGTH)}", markup=False)
        stderr.print(f"    {' '.join(job.overrides)}", markup=False)
        if job.trace:
            stderr.print(f"    traceback: {folder / 'jobs' / str(job.number) / records.NAME}", markup=False)
    if waiting:
        stderr.print(f"{len(waiting)} of {len(jobs)} jobs were not started:", style="bold red")
    for job in waiting[:_LISTED]:
        stderr.print(f"  job {job.number}: {' '.join(job.overrides)}", markup=False)
    if len(waiting) > _LISTED:
        stderr.print(f"  and {len(waiting) - _LISTED} more, in {folder / 'results.parquet'}", markup=False)
    refused = not waiting and all(
        job.status == records.FAILED and not job.trace and job.error != records.INTERRUPTED for job in missed
    )
    condition = "once that is mended, " if refused else ""
    stderr.print(f"finished work is kept; {condition}the same command runs the other jobs:", style="bold")
    stderr.print(f"  {command}", markup=False)
