"""HTML elements of the report; all text is escaped here."""

import html
from collections.abc import Iterable, Mapping, Sequence

from mechxai.figures.text import number, printable


def escaped(text: object) -> str:
    """Any text, escaped for HTML, with invisible characters made visible."""
    return html.escape(printable(str(text)))


def paragraph(text: str, style: str = "") -> str:
    """A paragraph; ``style`` is its CSS class."""
    return f'<p class="{style}">{escaped(text)}</p>' if style else f"<p>{escaped(text)}</p>"


def table(rows: Sequence[Mapping[str, object]], styles: Mapping[str, str] | None = None) -> str:
    """A table of plain values; its columns are the rows' keys, in the order of their first occurrence.

    Args:
        rows: column -> value; a missing value or None leaves the cell empty.
        styles: column -> CSS class; columns of numbers are aligned without one.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    classes = {column: _class(column, rows, styles or {}) for column in columns}
    head = "".join(f"<th{classes[column]}>{escaped(column)}</th>" for column in columns)
    body = (f"<td{classes[column]}>{_cell_text(row.get(column))}</td>" for row in rows for column in columns)
    lines = ("".join(next(body) for _ in columns) for _ in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values as a description list."""
    items = "".join(f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in pairs)
    return f"<dl>{items}</dl>" if items else ""


def warning(text: str) -> str:
    """A highlighted note on how to read the numbers."""
    return f'<p class="warning"><strong>Note</strong>{escaped(text)}</p>'


def folded(summary: str, content: str) -> str:
    """Markup that a click on the summary unfolds."""
    return f"<details><summary>{escaped(summary)}</summary>{content}</details>"


def _class(column: str, rows: Sequence[Mapping[str, object]], styles: Mapping[str, str]) -> str:
    values = [row[column] for row in rows if row.get(column) is not None]
    numeric = bool(values) and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    name = styles.get(column, "number" if numeric else "")
    return f' class="{name}"' if name else ""


def _cell_text(value: object) -> str:
    if value is None:
        return ""
    return escaped(number(value) if isinstance(value, float) else value)
