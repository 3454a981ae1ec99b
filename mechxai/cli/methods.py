"""``mechxai methods``: what each method measures, costs and comes from. Imports no torch."""

from collections.abc import Sequence
from itertools import groupby

from mechxai.cli.console import OK, show, show_facts, show_table
from mechxai.cli.settings_table import settings_rows
from mechxai.core.errors import ConfigError, unknown
from mechxai.methods.catalog import MethodEntry, catalog

HELP = """The methods: what each measures, what it costs, where it comes from.

  mechxai methods                        all methods, by family
  mechxai methods activation_patching    one method: strengths, weaknesses, settings, how to call it
  mechxai methods ActivationPatching     the same, by its name in Python
  mechxai methods --markdown             the table of the documentation"""


def main(arguments: Sequence[str]) -> int:
    """``mechxai methods [NAME ... | --markdown]``; returns the exit code."""
    if "--markdown" in arguments:
        show(methods_markdown())
        return OK
    entries = [method_entry(name) for name in arguments]
    for entry in entries:
        show_method(entry)
    if entries:
        return OK
    for family, members in groupby(catalog().values(), key=lambda entry: entry.family):
        rows = [{"name": entry.name, "measures": entry.question, "cost": entry.cost} for entry in members]
        show_table(family, rows)
    show("mechxai methods NAME shows strengths, weaknesses, source and settings")
    return OK


def method_entry(name: str) -> MethodEntry:
    """A method by its config name or class name.

    Raises:
        ConfigError: no method has that name; names the nearest.
    """
    methods = catalog()
    by_class = {entry.class_name: entry for entry in methods.values()}
    entry = methods.get(name) or by_class.get(name)
    if entry is None:
        raise ConfigError(unknown("method", name, [*methods, *by_class]), fix="See mechxai methods")
    return entry


def show_method(entry: MethodEntry) -> None:
    """Prints everything about one method."""
    call = ", ".join(f"{field.name}={field.source}" for field in entry.fields.values())
    show_facts(
        f"{entry.name} ({entry.family})",
        {
            "measures": entry.question,
            "cost": entry.cost,
            "strengths": entry.pros,
            "weaknesses": entry.cons,
            "source": entry.source,
            "in Python": f"mx.{entry.class_name}({call})",
            "in a run": f"mechxai run method={entry.name}",
        },
    )
    rows = settings_rows(entry.fields.values())
    if rows:
        show_table("Settings", rows)


def methods_markdown() -> str:
    """The methods as a table in Markdown."""
    rows = [f"| `{one.class_name}` | {one.question} | {one.cost} | {one.source} |" for one in catalog().values()]
    return "\n".join(["| method | question | cost | source |", "|---|---|---|---|", *rows])
