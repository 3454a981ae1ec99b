"""Watches a running sweep and reports each job as it ends."""

import hashlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType

from mechxai.core.files import remove_partial_files
from mechxai.core.reporter import Reporter
from mechxai.sweeps.record import FAILED, RUNNING, WAITING, JobRecord, forget, records

_EVERY = 0.5  # seconds between two looks
_AT_ONCE = 1.0  # seconds; what takes less did not compute


def sweep_hash(overrides: Sequence[str]) -> str:
    """What names a sweep: the same overrides, in any order, are the same sweep. How it is launched does not matter."""
    launching = ("hydra/launcher", "hydra.launcher", "force=", "processes=", "-")
    own = [one for one in overrides if not one.lstrip("+~").startswith(launching)]
    own.sort(key=lambda one: one.lstrip("+~").partition("=")[0])  # of one key the last counts, so their order stays
    return hashlib.blake2b("\n".join(own).encode(), digest_size=5).hexdigest()


@dataclass
class Watch:
    """``with Watch(folder, show): ...`` reports each job of a sweep as it ends, whatever launcher runs it.

    Attributes:
        folder: the sweep's folder.
        show: prints one line for the user.
    """

    folder: Path
    show: Reporter

    def __enter__(self) -> "Watch":
        forget(self.folder)  # those of an earlier run of the same sweep: this one looks at all its jobs again
        remove_partial_files(self.folder)
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
                    self.show(f"{told(record)}; {self._left(found)}")

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
