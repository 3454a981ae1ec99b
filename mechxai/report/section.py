"""One result on the page: what was done, the figure, the strongest cells, the baselines, the cost."""

import numpy as np

from mechxai.core.errors import ConfigError
from mechxai.core.result import Result
from mechxai.figures.cells import largest
from mechxai.figures.export import figure_div
from mechxai.figures.headings import display_name
from mechxai.figures.panels import headline_variable
from mechxai.figures.plot import plot
from mechxai.figures.shown_variable import Shown, shown
from mechxai.figures.text import interval, number, words
from mechxai.figures.tokens import is_attribution, token_html
from mechxai.report.markup import escaped, facts, paragraph, table, warning
from mechxai.report.sentences import what_is_shown, what_stands_out, what_was_done

N_LARGEST = 10
N_COLORED = 6  # prompts whose tokens are shown in colour


def section(name: str, result: Result, index: int) -> str:
    """The section of one result, its figure included; plotly.js is expected on the page."""
    variable = headline_variable(result)
    chosen = shown(result, variable) if variable else None
    parts = [
        f"<h2>{escaped(name)}</h2>",
        paragraph(what_was_done(result.info.method)),
        *map(warning, result.info.notes),
    ]
    if chosen is not None:
        strongest = largest(chosen.cells(), N_LARGEST, chosen.center)
        parts.append(paragraph(f"{what_is_shown(chosen)} {what_stands_out(chosen, strongest)}"))
    if is_attribution(result):
        parts += [token_html(result, prompt) for prompt in range(min(N_COLORED, result.data.sizes["prompt"]))]
    parts += [_figure(result, index), facts(_facts(result))]
    if chosen is not None and chosen.dims:
        parts.append(_strongest(result, chosen))
    return f'<section id="result-{index}">{"".join(part for part in parts if part != "<p></p>")}</section>'


def _figure(result: Result, index: int) -> str:
    try:
        figure = plot(result)
    except ConfigError as error:
        return paragraph(f"No figure: {error}", "quiet")
    return f'<div class="figure">{figure_div(figure, f"figure-{index}")}</div>'


def _facts(result: Result) -> list[tuple[str, str]]:
    """Baselines, other single numbers, and what the run cost."""
    found = []
    data = result.data
    for run in ("clean", "corrupted"):
        array = data.get(f"baseline_{run}")
        if array is not None and np.isfinite(array.values).any():
            found.append((f"mean of the {run} run", number(float(array.mean()), str(array.attrs["units"]))))
    if "prompt" in data.sizes:
        found.append(("prompts", str(data.sizes["prompt"])))
    single = {
        str(name): array for name, array in data.data_vars.items() if not array.ndim and array.dtype.kind in "biuf"
    }
    for name, array in single.items():
        if any(name.endswith(end) and name.removesuffix(end) in single for end in ("_low", "_high")):
            continue
        unit = str(array.attrs["units"])
        value = number(float(array), "" if unit == name else unit)
        ends = [float(single.get(f"{name}{end}", np.nan)) for end in ("_low", "_high")]
        between = interval(ends[0], ends[1])
        found.append((words(name), f"{value} ({between})" if between else value))
    return [*found, *((words(key), number(float(value))) for key, value in result.info.cost.items())]


def _strongest(result: Result, chosen: Shown) -> str:
    cells = largest(chosen.cells(), N_LARGEST, chosen.center)
    marks = (
        {}
        if chosen.marks is None
        else dict(zip((cell.name for cell in chosen.cells()), chosen.marks.values.ravel(), strict=True))
    )
    beside = _values(result, chosen)
    column = f"{display_name(chosen)} ({chosen.unit})" if chosen.unit not in ("", "1") else display_name(chosen)
    rows = []
    for cell in cells:
        row: dict[str, object] = {"site": cell.name, "position": cell.label or None, column: cell.value}
        row["95 % interval"] = interval(cell.low, cell.high) or None
        row["role"] = words(str(marks.get(cell.name, ""))) or None
        rows.append(row | beside.get(cell.name, {}))
    used = {key for row in rows for key, value in row.items() if value is not None}
    rows = [{key: value for key, value in row.items() if key in used} for row in rows]
    kept = "" if chosen.array.size <= N_LARGEST else f"The {len(rows)} largest of {chosen.array.size} cells"
    return f"<h3>{kept or 'All cells'}</h3>" + table(rows, {"site": "site", "95 % interval": "number"})


def _values(result: Result, chosen: Shown) -> dict[str, dict[str, object]]:
    """The metric itself, beside a share of it."""
    if chosen.name != "recovered" or "value" not in result.data or result.data["value"].dims != chosen.array.dims:
        return {}
    plain = shown(result, "value")
    column = f"{result.info.method.get('metric', 'value')} ({plain.unit})"
    return {cell.name: {column: cell.value} for cell in plain.cells()}
