"""A sweep as a whole: its jobs are watched while they run, and gathered in one table at the end."""

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from rich.console import Console

from mechxai import listing
from mechxai.core.files import sweep_up
from mechxai.launch.job_record import FAILED, FINISHED, RUNNING, WAITING, JobRecord, forget, records

_EVERY = 0.5  # seconds between two looks
_SHORT = 160  # characters of an error in a table
_LISTED = 20  # jobs that were not started, by name


def sweep_hash(overrides: Sequence[str]) -> str:
    """What names a sweep: the same overrides, in any order, are the same sweep. How it is launched does not matter."""
    launching = ("hydra/launcher", "hydra.launcher", "force=", "processes=", "-")
    own = [one for one in overrides if not one.lstrip("+~").startswith(launching)]
    own.sort(key=lambda one: one.lstrip("+~").partition("=")[0])  # of one key the last counts, so their order stays
    return hashlib.blake2b("\n".join(own).encode(), digest_size=5).hexdigest()


@dataclass
class Watch:
    """``with Watch(folder): ...``: jobs are told as they end, by whatever launcher they run.

    Attributes:
        folder: of the sweep.
    """

    folder: Path

    def __enter__(self) -> "Watch":
        forget(self.folder)  # those of an earlier run of the same sweep: this one looks at all its jobs again
        sweep_up(self.folder)
        self._told: set[int] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._tell()

    def _look(self) -> None:
        while not self._ended.wait(_EVERY):
            self._tell()

    def _tell(self) -> None:
        for record in records(self.folder):
            if record.status not in (WAITING, RUNNING) and record.number not in self._told:
                self._told.add(record.number)
                listing.show(told(record))


def told(record: JobRecord) -> str:
    """A job that has ended, in a line."""
    what = " ".join(record.overrides)
    if record.status == FAILED:
        return f"job {record.number} failed: {record.error} ({what})"
    return f"job {record.number} finished in {record.ended - record.started:.1f} s ({what})"


def end(folder: Path, command: str) -> int:
    """Shows and writes the table of a sweep, and what did not finish once more.

    Args:
        folder: of the sweep.
        command: that started it, and goes on with it.

    Returns:
        The exit code.
    """
    from mechxai.launch.summary import summary_rows, write_summary  # noqa: PLC0415 - heavy

    found = records(folder)
    if not found:
        Console(stderr=True).print("no job was started: see above", style="bold red")
        return 1
    rows = summary_rows(found)
    listing.show({"title": f"Sweep of {len(found)} jobs", "rows": [row.shown() for row in rows]})
    for path in write_summary(folder, found, rows):
        listing.show(f"{path.suffix.removeprefix('.')}: {path}")
    if all(record.status == FINISHED for record in found):
        return 0
    _tell_missed(folder, found, command)
    return 1


def _tell_missed(folder: Path, found: Sequence[JobRecord], command: str) -> None:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    missed = [record for record in found if record.status not in (FINISHED, WAITING)]
    waiting = [record for record in found if record.status == WAITING]
    if missed:
        console.print(f"{len(missed)} of {len(found)} jobs did not finish:", style="bold red")
    for record in missed:
        said = record.error or f"it died ({record.where}), or still runs"
        console.print(f"  job {record.number}: {said[:_SHORT]}", markup=False)
        console.print(f"    {' '.join(record.overrides)}", markup=False)
        if record.trace:
            console.print(f"    traceback: {folder / 'jobs' / str(record.number) / 'job.json'}", markup=False)
    if waiting:
        console.print(f"{len(waiting)} of {len(found)} jobs were not started:", style="bold red")
    for record in waiting[:_LISTED]:
        console.print(f"  job {record.number}: {' '.join(record.overrides)}", markup=False)
    if len(waiting) > _LISTED:
        console.print(f"  and {len(waiting) - _LISTED} more, in {folder / 'results.parquet'}", markup=False)
    console.print("what is finished is kept; the same command runs the others:", style="bold")
    console.print(f"  {command}", markup=False)
