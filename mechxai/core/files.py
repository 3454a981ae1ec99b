"""Atomic file writes, and errors for full disks and forbidden folders."""

import contextlib
import errno
import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from mechxai.core.errors import ArtifactError, ConfigError, NoSpaceError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NUMBERED = re.compile(r"(?:os error|errno =) (\d+)")  # in errors of Rust and of HDF5
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Generator[Path]:
    """A temporary path beside the target, flushed to the disk and renamed to it, so that no reader sees a partial file.

    Yields:
        The path to write to. If writing fails, it is removed and the target stays as it was.

    Raises:
        OSError: the system refuses to write, also where a library (safetensors, HDF5) says so in an error of its own.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield part
        _flush(part)
        part.replace(target)
        _flush(target.parent)
    except Exception as error:
        number = _NUMBERED.search(str(error))
        if number is None or getattr(error, "errno", None) is not None:
            raise
        code = int(number[1])
        raise OSError(code, os.strerror(code), str(target)) from error
    finally:
        part.unlink(missing_ok=True)


def set_aside(path: Path) -> None:
    """Renames a damaged file, so that a new one takes its place and the old one can be looked at."""
    with contextlib.suppress(OSError):
        path.replace(path.with_name(f"{path.name}.damaged"))


def write_atomic(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Writes text or bytes atomically; returns the path."""
    with atomic_write(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
    return Path(path)


def _flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk and not only in the system's memory."""
    with contextlib.suppress(OSError):  # folders cannot be opened on some systems
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_partial_files(folder: Path, spared: str = "") -> None:
    """Removes the temporary files of killed processes; no other process may be writing to the folder.

    Args:
        folder: searched with all folders below it.
        spared: name of a folder to leave alone.
    """
    for part in folder.rglob(".*.part"):
        if spared not in part.relative_to(folder).parts:
            part.unlink(missing_ok=True)


def make_writable_folder(folder: Path, *, setting: str) -> None:
    """Creates a folder if it does not exist.

    Args:
        folder: the folder.
        setting: the setting that names it, for the error (``output=/path``).

    Raises:
        ConfigError: it cannot be created.
        NoSpaceError: the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = disk_error(error)
        if isinstance(reason, NoSpaceError):
            raise reason from error
        raise ConfigError(
            f"{setting} cannot be created: {error.strerror}", fix="Choose a folder that you can write to"
        ) from error


def disk_error(error: BaseException) -> ArtifactError | None:
    """The user-facing form of a full disk or a missing permission; None for any other error.

    Args:
        error: raised by the system, or by a library on top of such an error (``raise ... from``).
    """
    cause = error if isinstance(error, OSError) else error.__cause__
    if not isinstance(cause, OSError) or isinstance(cause, ArtifactError):
        return None
    if cause.errno in _FULL:
        file = cause.filename or "a file"
        return NoSpaceError(
            f"Cannot write {file}: the disk is full", fix="Free some space, then run the same command again to continue"
        )
    if cause.errno in _FORBIDDEN and cause.filename:
        return ArtifactError(
            f"Cannot read or write {cause.filename}: {cause.strerror}",
            fix="Change its permissions, or choose another folder",
        )
    return None
