"""A full disk: a run on a file system that fills up at any phase ends plainly, and once there is space it finishes."""

import contextlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.jobs import Job, difference, finish, run_folder, start

_AMPLE = "64m"


@dataclass(frozen=True)
class FullDisk:
    """One job on a disk of a size.

    Attributes:
        job: the job.
        size: of the disk, in KiB.
        ended: how the run on the small disk ended: ``finished``, ``refused`` (one plain sentence) or ``traceback``.
        failure: what was wrong in the end, or None.
    """

    job: Job
    size: int
    ended: str
    failure: str | None


def can_mount(folder: Path) -> bool:
    """Whether this process may mount a file system of limited size."""
    try:
        with _disk(folder / "probe", 64):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def _disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of this many KiB, mounted at a folder.

    Yields:
        The folder.
    """
    folder.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={size}k", "none", str(folder)]
    subprocess.run(["mount", *options], check=True, capture_output=True)
    try:
        yield folder
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run(["umount", str(folder)], check=True, capture_output=True)


def used(folder: Path) -> int:
    """The KiB that the files below a folder take."""
    return sum((path.stat().st_size + 4095) // 4096 * 4 for path in folder.rglob("*") if path.is_file())


def run_full(job: Job, folder: Path, *, size: int, reference: Path) -> FullDisk:
    """Runs a job on a disk of ``size`` KiB, then again with space, and compares its result."""
    with _disk(folder, size) as disk:
        process = start(job, disk)
        output, _ = process.communicate(timeout=600)
        ended = "finished" if process.returncode == 0 else "traceback" if "Traceback" in output else "refused"
        failure = output[-300:] if ended == "traceback" else None
        subprocess.run(["mount", "-o", f"remount,size={_AMPLE}", str(disk)], check=True, capture_output=True)
        failure = failure or finish(job, disk)
        finished = run_folder(disk)
        if failure is None and finished is not None:
            failure = difference(finished, reference)
    return FullDisk(job, size, ended, failure)
