"""JSON Lines files, object by object, each with what to call it in an error."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mechxai.core.errors import ArtifactError, ConfigError, ShapeError


def objects(source: Path, n: int | None, what: str) -> Iterator[tuple[int, str, Any]]:
    """What the lines of a file hold, blank ones left out.

    Args:
        source: the file.
        n: how many to take, from the start; all when None.
        what: the file is, in errors.

    Yields:
        The number of the line, its name for errors, and what it holds.

    Raises:
        ArtifactError: no such file.
        ConfigError: fewer than one line asked.
        ShapeError: not UTF-8, or a line that is not JSON.
    """
    if not source.is_file():
        raise ArtifactError(f"{what} {source} was asked", got="no such file")
    if n is not None and n < 1:
        raise ConfigError(f"n={n} lines of {source.name} were asked", allowed="1 or more, or null for all")
    try:
        content = source.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ShapeError(f"{source.name} is not UTF-8", got=str(error)) from error
    filled = [line for line in enumerate(content.split("\n"), start=1) if line[1].strip()]
    for number, text in filled[:n]:
        where = f"{source.name}, line {number}"
        try:
            yield number, where, json.loads(text)
        except json.JSONDecodeError as error:
            raise ShapeError(f"{where} is not JSON", got=str(error)) from error
