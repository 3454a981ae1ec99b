"""The manifest of a run: the one reader and the one writer.

``manifest.json`` is written last and says that a run is finished; ``unfinished.json`` stands in its place until then.
Both name the run's method, model, task and seed, and the checksum of each file; each has a checksum of itself.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mechxai.core.files import write_atomic
from mechxai.core.pieces import sealed, unsealed

MANIFEST, UNFINISHED = "manifest.json", "unfinished.json"
_REQUIRED = {"run", "experiment", "method", "model", "task"}
_TIME = "%Y-%m-%dT%H:%M:%SZ"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The content of a finished run's manifest; empty where there is none, or a damaged one."""
    return _read(folder / MANIFEST)


def read_unfinished(folder: Path) -> dict[str, Any]:
    """What an unfinished run wrote of itself when it started; empty where there is no such file, or a damaged one."""
    return _read(folder / UNFINISHED)


def write_manifest(folder: Path, content: Mapping[str, object]) -> None:
    """Writes the manifest, which makes the run finished."""
    _write(folder / MANIFEST, content)
    (folder / UNFINISHED).unlink(missing_ok=True)


def write_unfinished(folder: Path, content: Mapping[str, object]) -> None:
    """Writes the facts of an unfinished run."""
    _write(folder / UNFINISHED, content)


def time_text(seconds: float | None = None) -> str:
    """A time, or now, in UTC as manifests have it."""
    return time.strftime(_TIME, time.gmtime(seconds))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = unsealed(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return {}
    return content if content is not None and set(content) >= _REQUIRED else {}


def _write(path: Path, content: Mapping[str, object]) -> None:
    write_atomic(path, sealed(content))
