"""Locks between processes: one process at a time works on a run or a sweep; a process that dies releases its lock."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from mechxai.core.reporter import Reporter


def folder_lock(folder: Path, root: Path) -> FileLock:
    """The lock of a folder; all locks lie in ``root/.locks``, so that the folder holds only its own files."""
    locks = root / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    return FileLock(locks / f"{folder.parent.name}-{folder.name}.lock")


@contextlib.contextmanager
def exclusive_lock(folder: Path, root: Path, show: Reporter) -> Iterator[None]:
    """Holds a folder's lock. A second process waits, then reuses the result."""
    lock = folder_lock(folder, root)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        show(f"{folder.name}: another process runs it; waiting")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
