"""Several variables over the same two dims, each a heatmap with its own scale: what every head does."""

from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechxai.core.result import Result
from mechxai.figures.axes import axis_of, below, beside, pixels
from mechxai.figures.colors import Scale
from mechxai.figures.headings import method_phrase, subtitle
from mechxai.figures.heatmap import color_axis, default_scale, layer
from mechxai.figures.role_codes import legend
from mechxai.figures.shown_variable import Shown, default_variable, drawable, heatmap_dims, shown
from mechxai.figures.text import safe, words
from mechxai.figures.theme import dress

_ACROSS = 3
_GAP_X, _GAP_Y = 130, 96


def panel_names(result: Result) -> list[str]:
    """The variables that share the two dims of ``role``; empty for results without roles."""
    role = result.data.get("role")
    if role is None or role.ndim != 2:
        return []
    return [name for name in drawable(result.data) if set(result.data[name].dims) == set(role.dims)]


def panels(result: Result, names: list[str]) -> go.Figure:
    """A heatmap for each variable, side by side, with the roles' codes in the cells."""
    every = [_turned(shown(result, name)) for name in names]
    rows, columns = (axis_of(every[0].array, dim) for dim in every[0].dims)
    across = min(len(every), _ACROSS)
    down = -(-len(every) // across)
    one = (
        pixels(len(columns.labels), per_cell=22, least=170, most=300),
        pixels(len(rows.labels), per_cell=22, least=150, most=300),
    )
    size = (one[0] * across + _GAP_X * (across - 1), one[1] * down + _GAP_Y * (down - 1))
    figure = make_subplots(
        rows=down,
        cols=across,
        subplot_titles=[safe(words(part.name)) for part in every],
        horizontal_spacing=_GAP_X / size[0] if across > 1 else 0,
        vertical_spacing=_GAP_Y / size[1] if down > 1 else 0,
    )
    for at, part in enumerate(every):
        trace = layer(part)
        trace.coloraxis = f"coloraxis{at + 1}" if at else "coloraxis"
        figure.add_trace(trace, row=at // across + 1, col=at % across + 1)
        _color_bar(figure, part, (at, _scale(part, every)))
    figure.update_annotations(font_size=13)
    figure.update_xaxes(below(columns, one[0]))
    figure.update_yaxes(beside(rows, one[1]))
    marks = every[0].marks
    roles = np.array([""]) if marks is None else marks.values
    whole = f"{method_phrase(every[0])}: what each {columns.dim} does, by {rows.dim}"
    return dress(figure, whole, [_without_unit(every[0]), legend(roles)], size=size, room=(24, 0))


def _scale(part: Shown, every: list[Shown]) -> Scale:
    """Scores in one unit share one scale from 0 up, so that panels can be compared by eye."""
    alike = [default_scale(other) for other in every if other.unit == part.unit]
    own = default_scale(part)
    return own if own.diverging else replace(own, high=max(scale.high for scale in alike if not scale.diverging))


def _color_bar(figure: go.Figure, part: Shown, place: tuple[int, Scale]) -> None:
    """A small bar right of its own panel."""
    at, scale = place
    suffix = str(at + 1) if at else ""
    across, up = (figure.layout[f"{axis}axis{suffix}"].domain for axis in "xy")
    look = color_axis(part, scale, 1000)
    bar = {"x": across[1] + 0.005, "xanchor": "left", "y": (up[0] + up[1]) / 2, "yanchor": "middle"}
    bar |= {"len": up[1] - up[0], "lenmode": "fraction", "thickness": 9}
    bar |= {
        "title": {"text": safe(part.unit), "side": "right", "font": {"size": 11}},
        "tickfont": {"size": 10},
        "nticks": 5,
    }
    figure.update_layout({f"coloraxis{suffix}": {**look, "colorbar": bar}})


def _turned(part: Shown) -> Shown:
    return part.arranged(*heatmap_dims(part.dims))


def _without_unit(part: Shown) -> str:
    return subtitle(part).removesuffix(f" · unit {part.unit}")


def headline_variable(result: Result) -> str | None:
    """The variable a table is made of: where several are drawn side by side, the effect."""
    names = panel_names(result)
    return "effect" if len(names) > 1 and "effect" in names else default_variable(result)
