"""What the command line shows of what is there: methods, models, tasks, reports. Each gives the exit code."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from itertools import groupby
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, ConsoleRenderable
from rich.table import Table
from rich.text import Text

from mechxai.core.errors import ConfigError, MechXAIError, check_choice

if TYPE_CHECKING:
    from mechxai.core.method import Method, MethodCard

INTERRUPTED = 130  # the exit code that shells have for it
_console = Console()


def show(thing: object) -> None:
    """Shows a line of text, what rich can render, or a table: a mapping with ``title`` and ``rows``."""
    if isinstance(thing, Mapping):
        _table(str(thing["title"]), thing["rows"])
    elif isinstance(thing, ConsoleRenderable):
        _console.print(thing)
    else:
        _console.print(str(thing), markup=False, highlight=False, soft_wrap=True)


def show_error(error: MechXAIError) -> None:
    """Shows an error on the error stream, and where more is said about it."""
    name = type(error).__name__
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"[bold red]{name}[/]: ", end="")
    console.print(str(error), markup=False)
    console.print(f"More: mechxai explain {name}", style="dim")


def _table(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    table = Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in rows[0] if rows else ():
        numeric = isinstance(rows[0][column], float)
        whole = numeric or column == "name"
        table.add_column(Text(column), justify="right" if numeric else "left", overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*(Text(f"{value:.2f}" if isinstance(value, float) else str(value)) for value in row.values()))
    _console.print(table)


def methods(arguments: Sequence[str]) -> int:
    """``mechxai methods [NAME ... | --markdown]``: what each asks, what it costs, where it comes from."""
    from mechxai.methods import registry  # noqa: PLC0415 - heavy

    if "--markdown" in arguments:
        show(methods_markdown())
        return 0
    known = {card.name: card for card in registry.cards()}
    for name in arguments:
        check_choice("method", name, known)
    if arguments:
        for name in arguments:
            _whole(known[name], registry.METHODS[name])
        return 0
    for family, cards in groupby(known.values(), key=lambda card: card.family):
        _table(family, [{"name": one.name, "asks": one.question, "cost": one.cost} for one in cards])
    show("mechxai methods NAME shows strengths, weaknesses, source and settings; --markdown prints a table")
    return 0


def methods_markdown() -> str:
    """The README's table of methods."""
    from mechxai.methods import registry  # noqa: PLC0415 - heavy

    rows = [
        f"| `{registry.METHODS[card.name].__name__}` | {card.question} | {card.cost} | {card.source} |"
        for card in registry.cards()
    ]
    return "\n".join(["| method | asks | cost | source |", "|---|---|---|---|", *rows])


def _whole(card: "MethodCard", kind: "type[Method]") -> None:
    """One method, whole."""
    settings = ", ".join(f"{field.name}={_default(field)}" for field in fields(kind))  # type: ignore[arg-type] # every method is a dataclass
    rows = {
        "asks": card.question,
        "cost": card.cost,
        "for it": card.pros,
        "against it": card.cons,
        "source": card.source,
        "in Python": f"mx.{kind.__name__}({settings})",
        "in a run": f"mechxai run method={card.name}",
    }
    _table(f"{card.name} ({card.family})", [{"": key, " ": value} for key, value in rows.items() if value])


def _default(field: Field[object]) -> str:
    return "..." if field.default is MISSING else repr(field.default)


def models(arguments: Sequence[str]) -> int:
    """``mechxai models``: the bundled models."""
    del arguments
    from mechxai.model.zoo.bundled import zoo_card, zoo_names  # noqa: PLC0415 - keeps --help quick

    rows = []
    for name in zoo_names():
        card = zoo_card(name)
        metrics = ", ".join(f"{key} {value}" for key, value in card["metrics"].items())
        rows.append({"name": name, "kind": card["kind"], "what": card["description"], "measured": metrics})
    _table("Bundled models (mx.load also takes a folder or a Hugging Face id)", rows)
    return 0


def tasks(arguments: Sequence[str]) -> int:
    """``mechxai tasks [NAME ...]``: each with its settings."""
    from mechxai.tasks import TASKS  # noqa: PLC0415 - heavy

    rows = []
    known = {name.removeprefix("from_"): name for name in TASKS}  # as `task=` takes them
    wanted = [name.removeprefix("from_") for name in arguments]
    for name in wanted:
        check_choice("task", name, known)
    for name, task in ((known[name], TASKS[known[name]]) for name in wanted or known):
        settings = [str(parameter) for key, parameter in inspect.signature(task).parameters.items() if key != "model"]
        rows.append({"name": name, "what": (task.__doc__ or "").splitlines()[0], "settings": ", ".join(settings)})
    _table("Tasks", rows)
    return 0


def report(arguments: Sequence[str]) -> int:
    """``mechxai report RESULT.nc ... [-o FILE]``: one page from result files."""
    from mechxai.core.result import Result  # noqa: PLC0415 - heavy
    from mechxai.report.page import report as write  # noqa: PLC0415 - heavy

    target = "report.html"
    if "-o" in arguments:
        place = arguments.index("-o")
        if place + 1 == len(arguments):
            raise ConfigError("mechxai report -o was asked", got="no file after -o")
        target = arguments[place + 1]
        arguments = [*arguments[:place], *arguments[place + 2 :]]
    if not arguments:
        raise ConfigError(
            "mechxai report was asked", got="no result file", fix="mechxai report outputs/.../result.nc -o report.html"
        )
    show(f"report: {write([Result.load(path) for path in arguments], target)}")
    return 0
