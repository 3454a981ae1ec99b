"""Titles, subtitles and hover texts: what a figure says in words."""

from mechxai.figures.cells import Cell
from mechxai.figures.shown_variable import Shown
from mechxai.figures.text import interval, number, safe, words

_DIRECTIONS = {"denoise": "clean into corrupted", "noise": "corrupted into clean"}


def method_phrase(shown: Shown) -> str:
    """``Activation patching of resid_pre (clean into corrupted)``."""
    method = shown.info.method
    name = words(str(method.get("name", "result"))).capitalize()
    of = f" of {method['site']}" if method.get("site") else ""
    how = _DIRECTIONS.get(str(method.get("direction")), method.get("edit"))
    return f"{name}{of}" + (f" ({how})" if isinstance(how, str) else "")


def display_name(shown: Shown) -> str:
    """The variable in words; what an edit takes away is ``removed``, though the variable is called ``recovered``."""
    method = shown.info.method
    takes = method.get("name") == "ablation" or method.get("direction") == "noise"
    return "removed" if shown.name == "recovered" and takes else words(shown.name)


def title(shown: Shown) -> str:
    """Method, site and what is drawn."""
    return f"{method_phrase(shown)}: {shown.long_name}"


def subtitle(shown: Shown) -> str:
    """Model, task, prompts, metric and unit, on one line."""
    info = shown.info
    task = info.task.get("name")
    prompts = f"{shown.n_prompts} prompts" if shown.n_prompts else ""
    parts = [
        str(info.model.get("name", "")),
        ", ".join(part for part in (str(task) if task else "", prompts) if part),
        f"metric {info.method['metric']}" if info.method.get("metric") else "",
        f"unit {shown.unit}" if shown.unit not in ("", "1") else "",
        *(f"{dim} {value}" for dim, value in _fixed(shown).items()),
    ]
    return " · ".join(part for part in parts if part)


def hover(shown: Shown, cell: Cell, mark: str = "") -> str:
    """The lines beside the pointer: site, token, value with unit, interval, role."""
    between = interval(cell.low, cell.high)
    lines = [
        f"<b>{safe(cell.name, 80)}</b>",
        f"at {safe(cell.label, 60)}" if cell.label else "",
        f"{safe(display_name(shown))} {number(cell.value, safe(shown.unit))}",
        f"95 % {between}" if between else "",
        f"role: {safe(words(mark))}" if mark else "",
    ]
    return "<br>".join(line for line in lines if line)


def unit_title(shown: Shown, *, gap: str = "<br>") -> str:
    """Name and unit, over a colour bar on two lines or beside an axis on one."""
    unit = safe(shown.unit)
    return safe(display_name(shown)) + (f"{gap}({unit})" if unit and unit != "1" else "")


def _fixed(shown: Shown) -> dict[str, object]:
    return {str(dim): value.values.item() for dim, value in shown.array.coords.items() if value.ndim == 0}
