"""Locks between processes: who holds a run's or a sweep's is alone with it, and a process that dies lets go."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout


def folder_lock(folder: Path, root: Path) -> FileLock:
    """The lock of a folder; locks lie together below ``root``, so that the folder holds nothing but its own."""
    locks = root / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    return FileLock(locks / f"{folder.parent.name}-{folder.name}.lock")


@contextlib.contextmanager
def exclusive_lock(folder: Path, root: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Keeps other processes from the same folder; ``filelock`` does."""
    lock = folder_lock(folder, root)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{folder.name}: another process runs it; waiting")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
