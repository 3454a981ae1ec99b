"""A reader of JSON Lines files that names the line in every error."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mechxai.core.errors import ArtifactError, ConfigError, ShapeError


def json_lines(source: Path, n: int | None) -> Iterator[tuple[int, str, Any]]:
    """The objects in a JSON Lines file, without its blank lines.

    Args:
        source: the file.
        n: number of lines to read from the start; all when None.

    Yields:
        The line's number, its name for errors, and its object.

    Raises:
        ArtifactError: the file does not exist.
        ConfigError: ``n`` below 1.
        ShapeError: not UTF-8, or a line that is not JSON.
    """
    if not source.is_file():
        raise ArtifactError(f"{source} does not exist", fix="Check the path")
    if n is not None and n < 1:
        raise ConfigError(f"n={n} lines of {source.name} cannot be read", allowed="at least 1, or null for all")
    try:
        content = source.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ShapeError(f"{source.name} is not UTF-8: {error}") from error
    filled = [line for line in enumerate(content.split("\n"), start=1) if line[1].strip()]
    for number, text in filled[:n]:
        where = f"{source.name}, line {number}"
        try:
            yield number, where, json.loads(text)
        except json.JSONDecodeError as error:
            raise ShapeError(f"{where} is not JSON: {error}") from error
