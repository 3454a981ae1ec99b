"""Files written whole or not at all, and what it means to users when one cannot be."""

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from mechxai.core.errors import ArtifactError, ConfigError, NoSpaceError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Generator[Path]:
    """A place beside the target to write to, renamed to it afterwards, so that no reader ever sees half a file.

    Yields:
        The path to write to. Where writing fails, nothing is left of it and the target stays as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def write_atomic(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Writes text or bytes whole or not at all; returns the path."""
    with atomic_write(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
    return Path(path)


def remove_partial_files(folder: Path, spared: str = "") -> None:
    """Removes the beginnings of files that processes left which were killed; nobody else may be writing there.

    Args:
        folder: where, with all folders below.
        spared: a folder's name; what lies in it is left alone.
    """
    for part in folder.rglob(".*.part"):
        if spared not in part.relative_to(folder).parts:
            part.unlink(missing_ok=True)


def make_writable_folder(folder: Path, *, asked: str) -> None:
    """Makes a folder, unless it is there.

    Args:
        folder: where results will lie.
        asked: how it was asked for, for the error.

    Raises:
        ConfigError: there cannot be one.
        NoSpaceError: the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        known = disk_error(error)
        if isinstance(known, NoSpaceError):
            raise known from error
        raise ConfigError(
            f"{asked} was asked", got=error.strerror, fix="give a folder that can be made and written to"
        ) from error


def disk_error(error: BaseException) -> ArtifactError | None:
    """An error of the file system as it is told to users; None where it is of another kind.

    Args:
        error: raised by the system, or by a library that says what it came from (``raise ... from``).
    """
    own = error if isinstance(error, OSError) else error.__cause__
    if not isinstance(own, OSError) or isinstance(own, ArtifactError):
        return None
    if own.errno in _FULL:
        what = f"{own.filename} was to be written" if own.filename else "Files were to be written"
        return NoSpaceError(what, got="the disk is full", fix="make room, then run the same command: it goes on")
    if own.errno in _FORBIDDEN and own.filename:
        what = f"{own.filename} was to be read or written"
        return ArtifactError(what, got=own.strerror, fix="change its permissions, or choose another folder")
    return None
