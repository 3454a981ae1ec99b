"""Short text and HTML summaries of objects, for consoles and notebooks."""

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import final

_UNSAFE = frozenset("\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_ROWS = 20  # of a summary
_SHOWN = 3  # prompts
_LONGEST = 100  # characters of a prompt


@dataclass(frozen=True)
class Summary:
    """A title and a few rows.

    Attributes:
        title: one line.
        rows: cells per row; at most 20 are shown.
    """

    title: str
    rows: Sequence[tuple[str, ...]] = ()

    def text(self) -> str:
        """The summary as indented lines."""
        rows = self._rows()
        columns = zip(*(_without_last(row) for row in rows), strict=True)  # a row's last cell widens no column
        widths = [max(map(len, column)) for column in columns]
        cells = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
        return "\n".join([neutralised(self.title), *("  " + "  ".join(row).rstrip() for row in cells)])

    def html(self) -> str:
        """The summary as a table, every cell escaped."""
        rows = ["".join(f"<td style='text-align:left'>{escape(cell)}</td>" for cell in row) for row in self._rows()]
        table = "\n".join(f"<tr>{row}</tr>" for row in rows)
        return f"<div><b>{escape(self.title)}</b></div>\n<table>\n{table}\n</table>"

    def _rows(self) -> list[tuple[str, ...]]:
        width = max((len(row) for row in self.rows), default=0)
        return [(*map(_shortened, row), *("",) * (width - len(row))) for row in self.rows[:_ROWS]]


def neutralised(text: str) -> str:
    r"""The text with what steers a terminal as visible escapes such as ``\x1b``; line breaks and tabs stay.

    Control characters, marks of text direction and halves of characters, which no terminal can write, are such.
    """
    return "".join(char.encode("unicode_escape").decode() if _steers(char) else char for char in text)


def _steers(char: str) -> bool:
    return char in _UNSAFE or (char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cs"))


class Displayed(ABC):
    """An object whose text and HTML forms are its `summary`; dataclasses that derive from it set ``repr=False``."""

    @abstractmethod
    def summary(self) -> Summary:
        """The object in a few lines."""

    @final
    def __repr__(self) -> str:
        return self.summary().text()

    @final
    def _repr_html_(self) -> str:
        return self.summary().html()


def prompt_rows(prompts: Sequence[Sequence[str] | str]) -> list[tuple[str, ...]]:
    """A row for each of the first prompts, and one that counts the rest."""
    rows = [(str(number), _shortened(_as_text(prompt))) for number, prompt in enumerate(prompts[:_SHOWN])]
    rest = len(prompts) - len(rows)
    return [*rows, ("...", f"{rest} more")] if rest > 0 else rows


def of_task(info: Mapping[str, object]) -> str:
    """`` of ioi`` for a batch of a task; empty where its origin is unknown."""
    return f" of {info['name']}" if info.get("name", "given") != "given" else ""


def counted(number: int, noun: str) -> str:
    """A number and its noun: ``1 prompt``, ``64 prompts``."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _shortened(text: str) -> str:
    line = neutralised(text.replace("\n", "\\n"))
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def _without_last(row: tuple[str, ...]) -> tuple[str, ...]:
    last = max((column for column, cell in enumerate(row) if cell), default=0)
    return (*row[:last], *("",) * (len(row) - last))


def _as_text(tokens: Sequence[str]) -> str:
    """Tokens as one text: joined by spaces where they carry none of their own, as tokens that are whole words do."""
    spaced = any(token != token.strip() for token in tokens)
    return ("" if spaced else " ").join(tokens)
