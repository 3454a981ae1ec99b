"""Terminal output and exit codes of the command line."""

from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from mechxai.core.display import neutralised
from mechxai.core.errors import MechXAIError

OK, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: done; an error while running; refused before anything ran; Ctrl-C, as shells have it."""


class SafeConsole(Console):
    """A console whose texts cannot steer the terminal: manifests and results may come from elsewhere."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of anything rich renders, what steers a terminal in them made visible."""
        return map(_neutralised_segment, super().render(renderable, options))


def _neutralised_segment(segment: Segment) -> Segment:
    return segment if segment.control else Segment(neutralised(segment.text), segment.style)


_stdout = SafeConsole()


def show(item: object) -> None:
    """Prints a line of text, anything rich renders, or a table: a mapping with ``title`` and ``rows``."""
    if isinstance(item, Mapping):
        show_table(str(item["title"]), item["rows"])
    elif isinstance(item, ConsoleRenderable):
        _stdout.print(item)
    else:
        _stdout.print(neutralised(str(item)), markup=False, highlight=False, soft_wrap=True)


def show_error(error: MechXAIError) -> None:
    """Prints an error to the error stream, and the command that says more about it."""
    name = type(error).__name__
    stderr = error_stream()
    stderr.print(f"[bold red]{name}[/]: ", end="")
    stderr.print(neutralised(str(error)), markup=False)
    stderr.print(f"More: mechxai explain {name}", style="dim")


def error_stream() -> Console:
    """A console on the error stream that wraps no line."""
    return SafeConsole(stderr=True, soft_wrap=True, highlight=False)


def show_table(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Prints rows of equal keys as a table; floats with two decimals, at the right."""
    table = Table(
        title=Text(neutralised(title)), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for column in rows[0] if rows else ():
        numeric = isinstance(rows[0][column], float)
        unbroken = numeric or column == "name"
        table.add_column(
            Text(neutralised(column)), justify="right" if numeric else "left", overflow="fold", no_wrap=unbroken
        )
    for row in rows:
        table.add_row(
            *(Text(f"{value:.2f}" if isinstance(value, float) else neutralised(str(value))) for value in row.values())
        )
    _stdout.print(table)


def show_facts(title: str, facts: Mapping[str, object]) -> None:
    """Prints names and values, one pair a line; empty values are left out."""
    show_table(title, [{"": name, " ": str(value)} for name, value in facts.items() if value not in ("", None)])
