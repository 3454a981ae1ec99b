"""Pieces of HTML; every text that goes in is escaped here."""

import html
from collections.abc import Iterable, Mapping, Sequence

from mechxai.figures.text import number, printable


def escaped(text: object) -> str:
    """Any text for HTML, with what cannot be seen made visible."""
    return html.escape(printable(str(text)))


def paragraph(text: str, style: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{style}">{escaped(text)}</p>' if style else f"<p>{escaped(text)}</p>"


def table(rows: Sequence[Mapping[str, object]], styles: Mapping[str, str] | None = None) -> str:
    """Rows of plain values as a table; its columns are the keys, in the order in which they first occur.

    Args:
        rows: column -> value; missing and None leave the cell empty.
        styles: column -> CSS class; columns of numbers need none.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    kinds = {column: _style(column, rows, styles or {}) for column in columns}
    head = "".join(f"<th{kinds[column]}>{escaped(column)}</th>" for column in columns)
    body = (f"<td{kinds[column]}>{_plain(row.get(column))}</td>" for row in rows for column in columns)
    lines = ("".join(next(body) for _ in columns) for _ in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names with their values, side by side."""
    inside = "".join(f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in pairs)
    return f"<dl>{inside}</dl>" if inside else ""


def warning(text: str) -> str:
    """A note that a reader of the numbers must see."""
    return f'<p class="warning"><strong>Note</strong>{escaped(text)}</p>'


def folded(summary: str, inside: str) -> str:
    """Markup that opens on a click."""
    return f"<details><summary>{escaped(summary)}</summary>{inside}</details>"


def _style(column: str, rows: Sequence[Mapping[str, object]], styles: Mapping[str, str]) -> str:
    values = [row[column] for row in rows if row.get(column) is not None]
    numeric = bool(values) and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    name = styles.get(column, "number" if numeric else "")
    return f' class="{name}"' if name else ""


def _plain(value: object) -> str:
    if value is None:
        return ""
    return escaped(number(value) if isinstance(value, float) else value)
