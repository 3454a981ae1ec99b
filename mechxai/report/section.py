"""The section of one result: method, notes, figure, baselines, cost and largest cells."""

import numpy as np

from mechxai.core.errors import ConfigError
from mechxai.core.result import Result
from mechxai.figures.cells import largest_cells
from mechxai.figures.export import figure_div
from mechxai.figures.headings import display_name
from mechxai.figures.panels import headline_variable
from mechxai.figures.plot import plot
from mechxai.figures.selected_variable import SelectedVariable, select_variable
from mechxai.figures.text import interval, number, words
from mechxai.report.by_kind import token_paragraphs
from mechxai.report.markup import escaped, facts, paragraph, table, warning
from mechxai.report.sentences import figure_sentence, method_sentence, strongest_sentence

N_LARGEST = 10


def section(name: str, result: Result, index: int) -> str:
    """The HTML section of one result with its figure; the page must load plotly.js."""
    variable = headline_variable(result)
    selected = select_variable(result, variable) if variable else None
    parts = [
        f"<h2>{escaped(name)}</h2>",
        paragraph(method_sentence(result.info.method)),
        *map(warning, result.info.notes),
    ]
    if selected is not None:
        strongest = largest_cells(selected.cells(), N_LARGEST, selected.center)
        parts.append(paragraph(f"{figure_sentence(selected)} {strongest_sentence(selected, strongest)}"))
    parts += [*token_paragraphs(result), _figure(result, index), facts(_facts(result))]
    if selected is not None and selected.dims:
        parts.append(_largest_cells(result, selected))
    return f'<section id="result-{index}">{"".join(part for part in parts if part != "<p></p>")}</section>'


def _figure(result: Result, index: int) -> str:
    try:
        figure = plot(result)
    except ConfigError as error:
        return paragraph(f"No figure: {error}", "quiet")
    return f'<div class="figure">{figure_div(figure, f"figure-{index}")}</div>'


def _facts(result: Result) -> list[tuple[str, str]]:
    """Names and values of the baselines, other scalars, and the cost."""
    rows = []
    data = result.data
    for run in ("clean", "corrupted"):
        array = data.get(f"baseline_{run}")
        if array is not None and np.isfinite(array.values).any():
            rows.append((f"mean of the {run} run", number(float(array.mean()), str(array.attrs["units"]))))
    if "prompt" in data.sizes:
        rows.append(("prompts", str(data.sizes["prompt"])))
    scalars = {
        str(name): array for name, array in data.data_vars.items() if not array.ndim and array.dtype.kind in "biuf"
    }
    for name, array in scalars.items():
        if any(name.endswith(end) and name.removesuffix(end) in scalars for end in ("_low", "_high")):
            continue
        unit = str(array.attrs["units"])
        value = number(float(array), "" if unit == name else unit)
        ends = [float(scalars.get(f"{name}{end}", np.nan)) for end in ("_low", "_high")]
        bounds = interval(ends[0], ends[1])
        rows.append((words(name), f"{value} ({bounds})" if bounds else value))
    return [*rows, *((words(key), number(float(value))) for key, value in result.info.cost.items())]


def _largest_cells(result: Result, selected: SelectedVariable) -> str:
    """A table of the largest cells with their intervals and roles."""
    cells = largest_cells(selected.cells(), N_LARGEST, selected.center)
    marks = (
        {}
        if selected.marks is None
        else dict(zip((cell.name for cell in selected.cells()), selected.marks.values.ravel(), strict=True))
    )
    metric_values = _metric_values(result, selected)
    column = f"{display_name(selected)} ({selected.unit})" if selected.unit not in ("", "1") else display_name(selected)
    rows = []
    for cell in cells:
        row: dict[str, object] = {"site": cell.name, "position": cell.label or None, column: cell.value}
        row["95 % interval"] = interval(cell.low, cell.high) or None
        row["role"] = words(str(marks.get(cell.name, ""))) or None
        rows.append(row | metric_values.get(cell.name, {}))
    used = {key for row in rows for key, value in row.items() if value is not None}
    rows = [{key: value for key, value in row.items() if key in used} for row in rows]
    heading = (
        "All cells" if selected.array.size <= N_LARGEST else f"The {len(rows)} largest of {selected.array.size} cells"
    )
    return f"<h3>{heading}</h3>" + table(rows, {"site": "site", "95 % interval": "number"})


def _metric_values(result: Result, selected: SelectedVariable) -> dict[str, dict[str, object]]:
    """Cell name -> the metric's value, where the cells show ``recovered``, a share of it."""
    if selected.name != "recovered" or "value" not in result.data or result.data["value"].dims != selected.array.dims:
        return {}
    metric = select_variable(result, "value")
    column = f"{result.info.method.get('metric', 'value')} ({metric.unit})"
    return {cell.name: {column: cell.value} for cell in metric.cells()}
