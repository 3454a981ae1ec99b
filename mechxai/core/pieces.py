"""The parts that all checkpoints share: a checksum for every finished piece, and one policy for faults of the disk.

A piece is one finished part of a longer computation: a wave, a prompt, a layer, an answer. A damaged piece is reported
once, ignored and computed again. A disk that cannot take a piece costs the saving, never the run.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

_BLOCK = 2**20  # bytes of a file in memory at once
_SEAL = "checksum"
_log = logging.getLogger("mechxai.checkpoint")


def checksum(parts: Iterable[bytes | memoryview]) -> str:
    """The checksum of a piece's bytes (BLAKE2b, 128 bits), in hexadecimal."""
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        hashed.update(part)
    return hashed.hexdigest()


def file_checksum(path: Path) -> str:
    """The checksum of a file's bytes; empty for a file that cannot be read."""
    try:
        with path.open("rb") as file:
            return checksum(iter(lambda: file.read(_BLOCK), b""))
    except OSError:
        return ""


def sealed(content: Mapping[str, Any]) -> str:
    """A JSON object as text, with a checksum of its content under ``checksum``."""
    plain = json.loads(json.dumps(content, default=str))
    return json.dumps(plain | {_SEAL: _content_checksum(plain)}, indent=2) + "\n"


def unsealed(text: str) -> dict[str, Any] | None:
    """The content of a JSON object that `sealed` wrote; None where it is damaged or has no checksum."""
    try:
        content = json.loads(text)
    except ValueError:
        return None
    if not isinstance(content, dict):
        return None
    plain = cast("dict[str, Any]", content)
    expected = plain.pop(_SEAL, None)
    return plain if expected == _content_checksum(plain) else None


def _content_checksum(content: Mapping[str, Any]) -> str:
    return checksum([json.dumps(content, sort_keys=True).encode()])


class FaultPolicy:
    """Reports faults of a checkpoint's files, each once, so that none of them stops the run.

    Args:
        place: the folder or file of the pieces, for the messages.

    Attributes:
        failed: why pieces could not be saved, or None.
    """

    def __init__(self, place: Path) -> None:
        self.failed: str | None = None
        self._place = place
        self._damaged: set[str] = set()

    def report_damage(self, name: str, reason: object) -> None:
        """Warns that a piece is damaged and will be computed again."""
        if name not in self._damaged:
            _log.warning("%s cannot be read (%s) and is computed again", name, reason)
        self._damaged.add(name)

    def report_unsaved(self, reason: object) -> None:
        """Warns that pieces cannot be saved; the run continues without them."""
        if self.failed is None:
            _log.warning(
                "finished pieces cannot be kept in %s (%s); the run continues without them", self._place, reason
            )
        self.failed = str(reason)


class JsonLines:
    """Named pieces as lines ``[name, value, checksum]`` of one text file, appended as they are finished.

    Lines that are damaged, or cut short by a crash, are ignored.

    Args:
        file: the file; None keeps pieces in memory only.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._policy = FaultPolicy(file or Path())
        self._values: dict[str, Any] = {} if file is None or not file.is_file() else self._read(file)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def save(self, values: Mapping[str, Any]) -> None:
        """Appends pieces; each line starts with its line break, so that a torn line does not spoil the next."""
        self._values.update(values)
        if self._file is None:
            return
        lines = [json.dumps([name, value, _line_checksum(name, value)]) for name, value in values.items()]
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as out:
                out.write("".join(f"\n{line}" for line in lines))
        except OSError as error:
            self._policy.report_unsaved(error)

    def _read(self, file: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError as error:
            self._policy.report_damage(file.name, error)
            return values
        for line in filter(None, lines):
            try:
                name, value, expected = json.loads(line)
            except (ValueError, TypeError):
                name = value = expected = None
            if isinstance(name, str) and expected == _line_checksum(name, value):
                values[name] = value
            else:
                self._policy.report_damage(f"A line of {file.name}", "damaged or cut short")
        return values


def _line_checksum(name: str, value: object) -> str:
    return checksum([json.dumps([name, value]).encode()])
