"""Results as one page that opens from disk: no network, no other file."""

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

# Nothing may be loaded from anywhere, whatever a token or a name says.
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
    """Writes one HTML page about results; whole or not at all.

    Where heads have roles, the page begins with the circuit in words. Each result gets a section: what was done and
    what the figure shows in plain sentences, the figure, baselines and cost, its largest cells with their intervals,
    and its notes where nobody misses them. What produced the numbers stands at the end. All text is escaped, and the
    page may load nothing from anywhere.

    Args:
        results: one, several, or name -> result.
        path: of the page.
        title: of the page; made from the results by default.
        tables: heading -> rows of plain values, shown after the results.

    Returns:
        The path.

    Raises:
        ConfigError: neither results nor tables.
    """
    named = _named(results)
    if not named and not tables:
        raise ConfigError("A report was asked", got="no results and no tables", fix="give at least one result")
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
    several = [results] if isinstance(results, Result) else list(results)
    found: dict[str, Result] = {}
    for result in several:
        name, count = result.info.title, 2
        while name in found:
            name, count = f"{result.info.title} ({count})", count + 1
        found[name] = result
    return found


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
                "over": ", ".join(map(str, _listed(method.get("over")))),
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
    """The circuit in words, where the results are of one."""
    said = circuit_account(named.values())
    items = "".join(f"<li>{escaped(one)}</li>" for one in said)
    return f"<section><h2>The circuit in words</h2><ul>{items}</ul></section>" if said else ""


def _provenance(named: Mapping[str, Result]) -> str:
    """What another lab needs to repeat the numbers, folded away."""
    if not named:
        return ""
    inside = "".join(folded(name, _origin(result)) for name, result in named.items())
    return f"<footer><h2>Provenance</h2>{inside}</footer>"


def _origin(result: Result) -> str:
    info = result.info
    rows = [
        {"what": "MechXAI commit", "value": info.commit or "not from a checkout"},
        {"what": "weight hash", "value": info.model.get("weight_hash", "unknown")},
        *({"what": name, "value": version} for name, version in info.versions.items()),
    ]
    config = json.dumps(info.as_dict(), indent=2, default=str)
    return table(rows) + paragraph("Everything recorded:", "quiet") + f"<pre>{_block(config)}</pre>"


def _block(text: str) -> str:
    return "\n".join(escaped(line) for line in text.splitlines())


def _listed(value: object) -> Sequence[object]:
    return value if isinstance(value, (list, tuple)) else [] if value is None else [value]
