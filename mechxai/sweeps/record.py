"""The record of one job of a sweep: a small file that the job writes itself, wherever it runs."""

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from mechxai.core.files import write_atomic
from mechxai.core.pieces import sealed, unsealed

NAME, INTERRUPTED = "job.json", "interrupted"
WAITING, RUNNING, FINISHED, FAILED = "not started", "running", "finished", "failed"


@dataclass(frozen=True)
class JobRecord:
    """One job and its state.

    Attributes:
        number: of the job in its sweep.
        overrides: as ``key=value``.
        status: ``not started``, ``running`` (also of a job that was killed), ``finished`` or ``failed``.
        error: why it failed, in one line.
        trace: the traceback of an unexpected error.
        folders: label of a method -> folder of its results.
        started, ended: seconds since 1970.
        where: host and process.
    """

    number: int
    overrides: tuple[str, ...]
    status: str = RUNNING
    error: str = ""
    trace: str = ""
    folders: Mapping[str, str] = field(default_factory=dict[str, str])
    started: float = field(default_factory=time.time)
    ended: float = 0.0
    where: str = field(default_factory=lambda: f"{platform.node()}/{os.getpid()}")

    def save(self, folder: Path) -> None:
        """Writes the record into the job's folder, atomically."""
        write_atomic(folder / NAME, sealed(asdict(self)))

    def finished(self, folders: Mapping[str, str]) -> "JobRecord":
        """The record of the job, finished."""
        return replace(self, status=FINISHED, folders=dict(folders), ended=time.time())

    def failed(self, error: str, trace: str = "") -> "JobRecord":
        """The record of the job, failed."""
        return replace(self, status=FAILED, error=error, trace=trace, ended=time.time())


def remove_records(sweep: Path) -> None:
    """Removes the records below a sweep's folder."""
    for path in sweep.rglob(NAME):
        path.unlink(missing_ok=True)


def load_records(sweep: Path) -> list[JobRecord]:
    """The records below a sweep's folder, by number; damaged ones are left out."""
    loaded = []
    for path in sweep.rglob(NAME):
        try:
            content = unsealed(path.read_text(encoding="utf-8"))
            if content is not None:
                loaded.append(JobRecord(**{**content, "overrides": tuple(content["overrides"])}))
        except (OSError, UnicodeDecodeError, TypeError, KeyError):
            continue
    return sorted(loaded, key=lambda record: record.number)
