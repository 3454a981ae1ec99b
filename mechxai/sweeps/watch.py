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
from mechxai.sweeps.record import FAILED, RUNNING, WAITING, JobRecord, load_records, remove_records

_INTERVAL = 0.5  # seconds between two looks
_REUSED = 1.0  # seconds; a quicker job computed nothing
_LAUNCHING = ("hydra/launcher", "hydra.launcher", "force=", "processes=", "-")


def sweep_hash(overrides: Sequence[str]) -> str:
    """The identity of a sweep: its overrides in any order, without those that only say how it is launched."""
    decisive = [override for override in overrides if not override.lstrip("+~").startswith(_LAUNCHING)]
    decisive.sort(key=lambda override: override.lstrip("+~").partition("=")[0])  # stable: a key's last value counts
    return hashlib.blake2b("\n".join(decisive).encode(), digest_size=5).hexdigest()


@dataclass
class Watch:
    """``with Watch(folder, show): ...`` reports each job of a sweep as it ends, whatever launcher runs it.

    Attributes:
        folder: of the sweep.
        show: prints one line for the user.
    """

    folder: Path
    show: Reporter

    def __enter__(self) -> "Watch":
        remove_records(self.folder)  # of an earlier run of the same sweep, all of whose jobs run again
        remove_partial_files(self.folder)
        self._reported: set[int] = set()
        self._start, self._lock, self._ended = time.monotonic(), threading.Lock(), threading.Event()
        _ACTIVE.append(self)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _ACTIVE.remove(self)
        self._ended.set()
        self._thread.join()
        self.report()

    def _watch(self) -> None:
        while not self._ended.wait(_INTERVAL):
            self.report()

    def report(self) -> None:
        """Reports the jobs that ended since the last call, and how long the others may take."""
        with self._lock:
            jobs = load_records(self.folder)
            for job in jobs:
                if job.status not in (WAITING, RUNNING) and job.number not in self._reported:
                    self._reported.add(job.number)
                    self.show(f"{job_line(job)}; {self._progress(jobs)}")

    def _progress(self, jobs: Sequence[JobRecord]) -> str:
        """How many jobs ended, and the time left by those that computed something."""
        n_jobs, n_ended = len(jobs), len(self._reported)
        n_computed = sum(job.ended - job.started > _REUSED for job in jobs)
        if n_ended == n_jobs or not n_computed:
            return f"{n_ended} of {n_jobs} ended"
        seconds = (time.monotonic() - self._start) / n_computed * (n_jobs - n_ended)
        return f"{n_ended} of {n_jobs} ended, about {timedelta(seconds=round(seconds))} left"


_ACTIVE: list[Watch] = []  # of this process


def report_now() -> None:
    """Reports a job of this process that has just ended, before the next one prints anything."""
    for watch in _ACTIVE:
        watch.report()


def job_line(job: JobRecord) -> str:
    """A job that ended, in one line."""
    overrides = f" ({' '.join(job.overrides)})" if job.overrides else ""
    if job.status == FAILED:
        return f"job {job.number} failed: {job.error}{overrides}"
    return f"job {job.number} finished in {job.ended - job.started:.1f} s{overrides}"
