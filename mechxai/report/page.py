"""`report`: results as one HTML page that needs no network and no other file."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from plotly.offline import get_plotlyjs

from mechxai.core.errors import ConfigError
from mechxai.core.files import write_atomic
from mechxai.core.result import Result
from mechxai.report.circuit_account import circuit_account
from mechxai.report.markup import escaped, folded, paragraph, table
from mechxai.report.section import section
from mechxai.report.style import CSS

# The page loads nothing, whatever text a token or a name contains.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title><style>{css}</style><script>{script}</script></head>
<body><main>
{body}
</main></body></html>
"""
Rows = Sequence[Mapping[str, object]]


def report(
    results: Result | Mapping[str, Result] | Iterable[Result],
    path: str | os.PathLike[str],
    title: str | None = None,
    *,
    tables: Mapping[str, Rows] | None = None,
) -> Path:
    """Writes one HTML page about results, atomically.

    If the results include head roles, the page begins with the circuit in words. Each result has a section: the method
    in a sentence, notes, the figure with an explanation, baselines and cost, and the largest cells with their
    intervals. Provenance is at the end. All text is escaped, and the page loads nothing from the network.

    Args:
        results: a result, several results, or name -> result.
        path: of the page.
        title: of the page; by default made from the results.
        tables: heading -> rows of plain values, shown after the results.

    Returns:
        The path.

    Raises:
        ConfigError: there are neither results nor tables.
    """
    named = _named(results)
    if not named and not tables:
        raise ConfigError("A report needs at least one result or table")
    heading = title if title is not None else _title(named)
    parts = [_header(heading, named), _account(named)]
    parts += [section(name, result, index) for index, (name, result) in enumerate(named.items())]
    parts += [f"<section><h2>{escaped(name)}</h2>{table(rows)}</section>" for name, rows in (tables or {}).items()]
    parts.append(_provenance(named))
    page = _PAGE.format(policy=_POLICY, title=escaped(heading), css=CSS, script=get_plotlyjs(), body="\n".join(parts))
    return write_atomic(path, page)


def _named(results: Result | Mapping[str, Result] | Iterable[Result]) -> dict[str, Result]:
    if isinstance(results, Mapping):
        return {str(name): result for name, result in results.items()}
    named: dict[str, Result] = {}
    for result in [results] if isinstance(results, Result) else results:
        name, count = result.info.title, 2
        while name in named:
            name, count = f"{result.info.title} ({count})", count + 1
        named[name] = result
    return named


def _title(named: Mapping[str, Result]) -> str:
    if len(named) == 1:
        return next(iter(named))
    models = dict.fromkeys(str(result.info.model.get("name", "?")) for result in named.values())
    return f"{len(named)} results on {', '.join(models)}" if named else "Report"


def _header(heading: str, named: Mapping[str, Result]) -> str:
    rows = []
    for result in named.values():
        info = result.info
        method, task = info.method, info.task
        rows.append(
            {
                "method": method.get("name"),
                "site": method.get("site"),
                "over": ", ".join(map(str, _as_list(method.get("over")))),
                "metric": method.get("metric"),
                "model": info.model.get("name"),
                "weights": info.model.get("processing"),
                "task": task.get("name"),
                "prompts": result.data.sizes.get("prompt", task.get("n")),
                "seed": info.seed,
            }
        )
    links = "".join(f'<li><a href="#result-{index}">{escaped(name)}</a></li>' for index, name in enumerate(named))
    contents = f"<ol>{links}</ol>" if len(named) > 1 else ""
    return f"<header><h1>{escaped(heading)}</h1>{table(rows) if rows else ''}{contents}</header>"


def _account(named: Mapping[str, Result]) -> str:
    """The circuit in words; empty unless the results include head roles."""
    items = "".join(f"<li>{escaped(sentence)}</li>" for sentence in circuit_account(named.values()))
    return f"<section><h2>The circuit in words</h2><ul>{items}</ul></section>" if items else ""


def _provenance(named: Mapping[str, Result]) -> str:
    """Everything needed to reproduce the numbers, folded."""
    if not named:
        return ""
    content = "".join(folded(name, _provenance_of(result)) for name, result in named.items())
    return f"<footer><h2>Provenance</h2>{content}</footer>"


def _provenance_of(result: Result) -> str:
    info = result.info
    rows = [
        {"item": "MechXAI commit", "value": info.commit or "not run from a checkout"},
        {"item": "weight hash", "value": info.model.get("weight_hash", "unknown")},
        *({"item": name, "value": version} for name, version in info.versions.items()),
    ]
    config = json.dumps(info.as_dict(), indent=2, default=str)
    return table(rows) + paragraph("Full record:", "quiet") + f"<pre>{_escaped_lines(config)}</pre>"


def _escaped_lines(text: str) -> str:
    return "\n".join(escaped(line) for line in text.splitlines())


def _as_list(value: object) -> Sequence[object]:
    return value if isinstance(value, (list, tuple)) else [] if value is None else [value]
