"""Tables that pages ask for with a comment such as ``<!-- sites -->``, each from the code that decides."""

import inspect
import itertools
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import mechxai
from mechxai.core.metric import METRICS
from mechxai.core.result import RunInfo
from mechxai.core.site_table import SITES
from mechxai.model.zoo.bundled import zoo_card, zoo_names
from mechxai.tasks import TASKS


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """The page with the tables it asks for."""
    del page, config, files
    for name, made in _TABLES.items():
        mark = f"<!-- {name} -->"
        if mark in markdown:
            markdown = markdown.replace(mark, made())
    return markdown


def _table(*rows: tuple[object, ...]) -> str:
    lines = ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("``", "`")


def sites() -> str:
    """Every site name."""
    rows = [
        (f"`{row.name}`", f"`{', '.join(row.axes)}`", ", ".join(row.sweepable), f"`{row.hook}`")
        for row in SITES.values()
    ]
    return _table(("site", "dims after `batch`", "sweeps over", "hook in TransformerLens"), *rows)


def metrics() -> str:
    """Every metric."""
    rows = [
        (f"`{name}`", _first(kind), kind.unit, kind.higher_is, f"`mechxai run metric={name}`")
        for name, kind in METRICS.items()
    ]
    return _table(("metric", "what", "unit", "a higher value is", "in a run"), *rows)


def tasks() -> str:
    """Every task with its settings."""
    rows = [
        (f"[`{name}`](../api/tasks.md#{_path(task)})", _first(task), _settings(task)) for name, task in TASKS.items()
    ]
    return _table(("task", "what", "settings"), *rows)


def models() -> str:
    """Every bundled model, as its card says."""
    rows = []
    for name in zoo_names():
        card = zoo_card(name)
        measured = ", ".join(f"{key} {value}" for key, value in card["metrics"].items())
        rows.append((f"`{name}`", card["kind"], card["description"], measured))
    return _table(("model", "kind", "what", "measured on held-out prompts"), *rows)


def run_info() -> str:
    """The fields of a result's `RunInfo`."""
    return ", ".join(f"`{field.name}`" for field in fields(RunInfo))


def public_names() -> str:
    """Every name of ``mx``, by the floor it is of, each leading to where it is told."""
    floors = itertools.groupby(sorted(_homes().items(), key=lambda one: (one[1][0], one[0])), key=lambda one: one[1][0])
    parts = []
    for (_, title), names in floors:
        rows = [(f"[`mx.{name}`][{path}]", _first(getattr(mechxai, name))) for name, (_, path) in names]
        parts.append(f"## {title}\n\n{_table(('name', 'what'), *rows)}")
    return "\n\n".join(parts)


def _homes() -> dict[str, tuple[tuple[int, str], str]]:
    found = {}
    for name in mechxai.__all__:
        thing = getattr(mechxai, name)
        if not inspect.ismodule(thing):
            module = thing.__module__.removeprefix("mechxai.")
            number, title = next((at, text) for at, (start, text) in enumerate(_FLOORS) if module.startswith(start))
            found[name] = ((number, title), f"{thing.__module__}.{name}")
    return found


def _path(task: Callable[..., Any]) -> str:
    return f"{task.__module__}.{task.__name__}"


def _first(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ")


def _settings(task: Callable[..., Any]) -> str:
    own = [one for one in inspect.signature(task).parameters.values() if one.name != "model"]
    return ", ".join(f"`{one.name}{'' if one.default is one.empty else f'={_short(one.default)}'}`" for one in own)


def _short(value: object) -> str:
    return repr(value) if isinstance(value, (str, int, tuple, type(None))) else f"{type(value).__name__}()"


_FLOORS = (
    ("model", "Models"),
    ("core", "Prompts, sites, edits, results"),
    ("engine", "Engine and activations"),
    ("methods.patching", "Methods: patching"),
    ("methods.circuits", "Methods: circuits"),
    ("methods.lens", "Methods: lenses"),
    ("methods.probes", "Methods: probes"),
    ("methods.attribution", "Methods: attribution"),
    ("methods.attention", "Methods: attention"),
    ("methods.cot", "Methods: chains of thought"),
    ("figures", "Figures"),
    ("report", "Reports"),
)
_TABLES: dict[str, Callable[[], str]] = {
    "sites": sites,
    "metrics": metrics,
    "tasks": tasks,
    "models": models,
    "fields of RunInfo": run_info,
    "public names": public_names,
}
