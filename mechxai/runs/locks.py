"""Locks between processes: one process at a time works on a run or a sweep; a process that dies releases its lock.

The shards of a run hold a lock each, so that they run side by side and nobody removes the folder under them.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from mechxai.core.errors import UnfinishedError
from mechxai.core.reporter import Reporter


def folder_lock(folder: Path, root: Path, part: str = "") -> FileLock:
    """The lock of a folder, or of a part of the work in it; all locks lie in ``root/.locks``, outside the folder."""
    locks = root / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    return FileLock(locks / f"{_name(folder)}{f'.{part}' if part else ''}.lock")


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


@contextlib.contextmanager
def shard_lock(folder: Path, root: Path, shard: tuple[int, int]) -> Iterator[None]:
    """Holds the lock of a shard.

    Raises:
        UnfinishedError: another process runs the same shard.
    """
    try:
        with folder_lock(folder, root, f"{shard[0]}-of-{shard[1]}").acquire(timeout=0):
            yield
    except Timeout:
        raise UnfinishedError(
            f"Shard {shard[0]}/{shard[1]} of {folder.name} is run by another process", fix="Wait until it is done"
        ) from None


@contextlib.contextmanager
def every_lock(folder: Path, root: Path) -> Iterator[bool]:
    """Holds the lock of a folder and those of its shards.

    Yields:
        Whether they are held; False where a process has one of them.
    """
    shards = (root / ".locks").glob(f"{_name(folder)}.*.lock") if (root / ".locks").is_dir() else ()
    with contextlib.ExitStack() as stack:
        try:
            for lock in (folder_lock(folder, root), *map(FileLock, sorted(shards))):
                stack.enter_context(lock.acquire(timeout=0))
        except Timeout:
            stack.close()
            yield False
            return
        yield True


def _name(folder: Path) -> str:
    return f"{folder.parent.name}-{folder.name}"
