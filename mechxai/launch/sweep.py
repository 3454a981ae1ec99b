"""A sweep as a whole: its jobs are watched while they run, and gathered in one table at the end."""

import hashlib
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType

from rich.console import Console

from mechxai import listing
from mechxai.core.files import sweep_up, unwritten
from mechxai.figures.text import shortened
from mechxai.launch.job_record import FAILED, FINISHED, INTERRUPTED, RUNNING, WAITING, JobRecord, forget, records

_EVERY = 0.5  # seconds between two looks
_AT_ONCE = 1.0  # seconds; what takes less did not compute
_SHORT = 400  # characters of an error in a list
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
        self._begun, self._lock, self._ended = time.monotonic(), threading.Lock(), threading.Event()
        _WATCHING.append(self)
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _WATCHING.remove(self)
        self._ended.set()
        self._thread.join()
        self.tell()

    def _look(self) -> None:
        while not self._ended.wait(_EVERY):
            self.tell()

    def tell(self) -> None:
        """Tells of the jobs that have ended since it was last asked, and how long the others may take."""
        with self._lock:
            found = records(self.folder)
            for record in found:
                if record.status not in (WAITING, RUNNING) and record.number not in self._told:
                    self._told.add(record.number)
                    listing.show(f"{told(record)}; {self._left(found)}")

    def _left(self, found: Sequence[JobRecord]) -> str:
        """How many have ended, and how long the others may take, by those that were not there before."""
        jobs, ended = len(found), len(self._told)
        took = sum(record.ended - record.started > _AT_ONCE for record in found)
        if ended == jobs or not took:
            return f"{ended} of {jobs} ended"
        left = timedelta(seconds=round((time.monotonic() - self._begun) / took * (jobs - ended)))
        return f"{ended} of {jobs} ended, about {left} left"


_WATCHING: list[Watch] = []  # those of this process


def look_now() -> None:
    """A job of this process has ended: it is told before the next one speaks."""
    for watch in _WATCHING:
        watch.tell()


def told(record: JobRecord) -> str:
    """A job that has ended, in a line."""
    what = f" ({' '.join(record.overrides)})" if record.overrides else ""
    if record.status == FAILED:
        return f"job {record.number} failed: {record.error}{what}"
    return f"job {record.number} finished in {record.ended - record.started:.1f} s{what}"


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
    _show(found, [row.shown() for row in rows])
    unkept = None
    try:
        for path in write_summary(folder, found, rows):
            listing.show(f"{path.suffix.removeprefix('.')}: {path}")
    except OSError as error:  # a full disk must not cost the list of what failed
        unkept = unwritten(error)
        if unkept is None:
            raise
    finished = all(record.status == FINISHED for record in found)
    if not finished:
        _tell_missed(folder, found, command)
    if unkept is not None:
        listing.show_error(unkept)
    return 0 if finished and unkept is None else 1


def _show(found: Sequence[JobRecord], table: Sequence[Mapping[str, object]]) -> None:
    """The table; where every job has finished, without saying so of each, as narrow terminals have no room for it."""
    jobs = "1 job" if len(found) == 1 else f"{len(found)} jobs"
    if all(row["status"] == FINISHED for row in table):
        jobs = f"{jobs}, finished"
        table = [{key: value for key, value in row.items() if key != "status"} for row in table]
    listing.show({"title": f"Sweep of {jobs}", "rows": table})


def _tell_missed(folder: Path, found: Sequence[JobRecord], command: str) -> None:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    missed = [record for record in found if record.status not in (FINISHED, WAITING)]
    waiting = [record for record in found if record.status == WAITING]
    if missed:
        console.print(f"{len(missed)} of {len(found)} jobs did not finish:", style="bold red")
    for record in missed:
        said = record.error or f"it died ({record.where}), or still runs"
        console.print(f"  job {record.number}: {shortened(said, _SHORT)}", markup=False)
        console.print(f"    {' '.join(record.overrides)}", markup=False)
        if record.trace:
            console.print(f"    traceback: {folder / 'jobs' / str(record.number) / 'job.json'}", markup=False)
    if waiting:
        console.print(f"{len(waiting)} of {len(found)} jobs were not started:", style="bold red")
    for record in waiting[:_LISTED]:
        console.print(f"  job {record.number}: {' '.join(record.overrides)}", markup=False)
    if len(waiting) > _LISTED:
        console.print(f"  and {len(waiting) - _LISTED} more, in {folder / 'results.parquet'}", markup=False)
    refused = not waiting and all(
        record.status == FAILED and not record.trace and record.error != INTERRUPTED for record in missed
    )
    first = "once that is mended, " if refused else ""
    console.print(f"what is finished is kept; {first}the same command runs the others:", style="bold")
    console.print(f"  {command}", markup=False)
