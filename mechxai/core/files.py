"""Files written whole or not at all."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: str | os.PathLike[str]) -> Generator[Path]:
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


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Writes text or bytes whole or not at all; returns the path."""
    with whole(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
    return Path(path)


def sweep_up(folder: Path, spared: str = "") -> None:
    """Removes the beginnings of files that processes left which were killed; nobody else may be writing there.

    Args:
        folder: where, with all folders below.
        spared: a folder's name; what lies in it is left alone.
    """
    for part in folder.rglob(".*.part"):
        if spared not in part.relative_to(folder).parts:
            part.unlink(missing_ok=True)
