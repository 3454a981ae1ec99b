"""Tables that stand on a page as a comment such as ``<!-- sites -->``, each made from the code it describes."""

import inspect
import itertools
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import mechxai
from mechxai._public import public_names as modules_by_name
from mechxai.core.metric import METRICS
from mechxai.core.result import RunInfo
from mechxai.core.site_table import SITES, SiteName
from mechxai.model.zoo.bundled import zoo_card, zoo_names
from mechxai.tasks import TASKS

_FAULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "faults.json"


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """The page with its marks replaced by tables."""
    del page, config, files
    for name, table in _TABLES.items():
        mark = f"<!-- {name} -->"
        if mark in markdown:
            markdown = markdown.replace(mark, table())
    return markdown


def _table(*rows: tuple[object, ...]) -> str:
    lines = ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("``", "`")


def faults() -> str:
    """The counts of the last `make test-faults`, a table per part."""
    content = json.loads(_FAULTS.read_text(encoding="utf-8"))
    parts = [_of_rows(content[name]) for name in ("kills", "flips", "full_disk", "hostile") if content.get(name)]
    return "\n\n".join([*parts, f"Failures: {len(content['failures'])}."])


def _of_rows(rows: list[dict[str, object]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return _table(tuple(names), *(tuple(_plain(row.get(name, 0)) for name in names) for row in rows))


def _plain(value: object) -> object:
    return {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value


def sites() -> str:
    """Every site name."""
    rows = [
        (f"`{row.name}`", f"`{', '.join(row.axes)}`", ", ".join(row.sweepable), f"`{row.hook}`", _models_with(row))
        for row in SITES.values()
    ]
    return _table(("site", "dims after `batch`", "sweeps over", "hook in TransformerLens", "models"), *rows)


def _models_with(row: SiteName) -> str:
    conditions = [("with MLPs", row.needs_mlp), ("serial blocks", row.serial_only)]
    return ", ".join(text for text, applies in conditions if applies) or "all"


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
    """Every bundled model, from its card."""
    rows = []
    for name in zoo_names():
        card = zoo_card(name)
        measured = ", ".join(f"{key} {value}" for key, value in card["metrics"].items())
        rows.append((f"`{name}`", card["kind"], card["description"], measured))
    return _table(("model", "kind", "what", "measured on held-out prompts"), *rows)


def run_info() -> str:
    """The fields of `RunInfo`."""
    return ", ".join(f"`{field.name}`" for field in fields(RunInfo))


def public_names() -> str:
    """Every name of ``mx`` by the part of the package that defines it; each links to its documentation."""
    names = sorted((_part(module), name, module) for name, module in modules_by_name().items())
    parts = []
    for (_, title), members in itertools.groupby(names, key=lambda member: member[0]):
        rows = [(f"[`mx.{name}`][{module}.{name}]", _first(getattr(mechxai, name))) for _, name, module in members]
        parts.append(f"## {title}\n\n{_table(('name', 'what'), *rows)}")
    return "\n\n".join(parts)


def _part(module: str) -> tuple[int, str]:
    """Rank and title of the part of the package in which a module lies."""
    inside = module.removeprefix("mechxai.")
    return next((rank, title) for rank, (prefix, title) in enumerate(_PARTS) if inside.startswith(prefix))


def _path(task: Callable[..., Any]) -> str:
    return f"{task.__module__}.{task.__name__}"


def _first(documented: Any) -> str:
    return (inspect.getdoc(documented) or "").split("\n\n")[0].replace("\n", " ")


def _settings(task: Callable[..., Any]) -> str:
    settings = [parameter for parameter in inspect.signature(task).parameters.values() if parameter.name != "model"]
    return ", ".join(f"`{one.name}{'' if one.default is one.empty else f'={_short(one.default)}'}`" for one in settings)


def _short(value: object) -> str:
    return repr(value) if isinstance(value, (str, int, tuple, type(None))) else f"{type(value).__name__}()"


_PARTS = (
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
    "faults": faults,
}
