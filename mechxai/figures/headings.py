"""Titles, subtitles and hover texts of figures."""

from mechxai.figures.cells import Cell
from mechxai.figures.selected_variable import SelectedVariable
from mechxai.figures.text import interval, number, safe, words

_DIRECTIONS = {"denoise": "clean into corrupted", "noise": "corrupted into clean"}


def method_phrase(selected: SelectedVariable) -> str:
    """``Activation patching of resid_pre (clean into corrupted)``."""
    method = selected.info.method
    name = words(str(method.get("name", "result"))).capitalize()
    site = f" of {method['site']}" if method.get("site") else ""
    detail = _DIRECTIONS.get(str(method.get("direction")), method.get("edit"))
    return f"{name}{site}" + (f" ({detail})" if isinstance(detail, str) else "")


def display_name(selected: SelectedVariable) -> str:
    """The variable in words; ``recovered`` is called ``removed`` where the edit takes the behaviour away."""
    removes = selected.info.kind == "ablation" or selected.info.method.get("direction") == "noise"
    return "removed" if selected.name == "recovered" and removes else words(selected.name)


def title(selected: SelectedVariable) -> str:
    """Method, site and the variable's description."""
    return f"{method_phrase(selected)}: {selected.long_name}"


def subtitle(selected: SelectedVariable) -> str:
    """Model, task, number of prompts, metric, unit and fixed coordinates on one line."""
    info = selected.info
    task = info.task.get("name")
    prompts = f"{selected.n_prompts} prompts" if selected.n_prompts else ""
    parts = [
        str(info.model.get("name", "")),
        ", ".join(part for part in (str(task) if task else "", prompts) if part),
        f"metric {info.method['metric']}" if info.method.get("metric") else "",
        f"unit {selected.unit}" if selected.unit not in ("", "1") else "",
        *(f"{dim} {value}" for dim, value in _fixed(selected).items()),
    ]
    return " · ".join(part for part in parts if part)


def hover(selected: SelectedVariable, cell: Cell, mark: str = "") -> str:
    """A cell's hover text: site, token, value with unit, interval, role."""
    bounds = interval(cell.low, cell.high)
    lines = [
        f"<b>{safe(cell.name, 80)}</b>",
        f"at {safe(cell.label, 60)}" if cell.label else "",
        f"{safe(display_name(selected))} {number(cell.value, safe(selected.unit))}",
        f"95 % {bounds}" if bounds else "",
        f"role: {safe(words(mark))}" if mark else "",
    ]
    return "<br>".join(line for line in lines if line)


def unit_title(selected: SelectedVariable, *, gap: str = "<br>") -> str:
    """Name and unit: on two lines above a colour bar, on one (``gap=" "``) beside an axis."""
    unit = safe(selected.unit)
    return safe(display_name(selected)) + (f"{gap}({unit})" if unit and unit != "1" else "")


def _fixed(selected: SelectedVariable) -> dict[str, object]:
    return {str(dim): value.values.item() for dim, value in selected.array.coords.items() if value.ndim == 0}
