"""Head roles: one heatmap per score, side by side, with the roles' codes in the cells."""

from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechxai.core.result import Result
from mechxai.figures.axes import axis_of, horizontal, pixels, vertical
from mechxai.figures.colors import Scale
from mechxai.figures.headings import method_phrase, subtitle
from mechxai.figures.heatmap import color_axis, default_scale, heatmap_trace
from mechxai.figures.role_codes import legend
from mechxai.figures.selected_variable import (
    SelectedVariable,
    default_variable,
    drawable,
    heatmap_dims,
    select_variable,
)
from mechxai.figures.text import safe, words
from mechxai.figures.theme import dress

_ACROSS = 3
_GAP_X, _GAP_Y = 130, 96


def role_panels(result: Result) -> go.Figure | None:
    """A heatmap for each score of `HeadRoles`; None with fewer than two scores."""
    role = result.data["role"]
    names = [name for name in drawable(result.data) if set(result.data[name].dims) == set(role.dims)]
    return _panels(result, names) if len(names) > 1 else None


def _panels(result: Result, names: list[str]) -> go.Figure:
    scores = [_layers_first(select_variable(result, name)) for name in names]
    rows, columns = (axis_of(scores[0].array, dim) for dim in scores[0].dims)
    across = min(len(scores), _ACROSS)
    down = -(-len(scores) // across)
    panel_size = (
        pixels(len(columns.labels), per_cell=22, least=170, most=300),
        pixels(len(rows.labels), per_cell=22, least=150, most=300),
    )
    size = (panel_size[0] * across + _GAP_X * (across - 1), panel_size[1] * down + _GAP_Y * (down - 1))
    figure = make_subplots(
        rows=down,
        cols=across,
        subplot_titles=[safe(words(score.name)) for score in scores],
        horizontal_spacing=_GAP_X / size[0] if across > 1 else 0,
        vertical_spacing=_GAP_Y / size[1] if down > 1 else 0,
    )
    for at, score in enumerate(scores):
        trace = heatmap_trace(score)
        trace.coloraxis = f"coloraxis{at + 1}" if at else "coloraxis"
        figure.add_trace(trace, row=at // across + 1, col=at % across + 1)
        _color_bar(figure, score, (at, _scale(score, scores)))
    figure.update_annotations(font_size=13)
    figure.update_xaxes(horizontal(columns, panel_size[0]))
    figure.update_yaxes(vertical(rows, panel_size[1]))
    marks = scores[0].marks
    roles = np.array([""]) if marks is None else marks.values
    heading = f"{method_phrase(scores[0])}: scores of every {columns.dim}, by {rows.dim}"
    return dress(figure, heading, [_without_unit(scores[0]), legend(roles)], size=size, room=(24, 0))


def _scale(score: SelectedVariable, scores: list[SelectedVariable]) -> Scale:
    """A colour scale; scores in the same unit share one from 0 up, so that panels can be compared by eye."""
    same_unit = [default_scale(other) for other in scores if other.unit == score.unit]
    scale = default_scale(score)
    if scale.diverging:
        return scale
    return replace(scale, high=max(other.high for other in same_unit if not other.diverging))


def _color_bar(figure: go.Figure, score: SelectedVariable, place: tuple[int, Scale]) -> None:
    """Adds a small colour bar to the right of a score's panel."""
    at, scale = place
    suffix = str(at + 1) if at else ""
    across, up = (figure.layout[f"{axis}axis{suffix}"].domain for axis in "xy")
    settings = color_axis(score, scale, 1000)
    bar = {"x": across[1] + 0.005, "xanchor": "left", "y": (up[0] + up[1]) / 2, "yanchor": "middle"}
    bar |= {"len": up[1] - up[0], "lenmode": "fraction", "thickness": 9}
    bar |= {
        "title": {"text": safe(score.unit), "side": "right", "font": {"size": 11}},
        "tickfont": {"size": 10},
        "nticks": 5,
    }
    figure.update_layout({f"coloraxis{suffix}": {**settings, "colorbar": bar}})


def _layers_first(score: SelectedVariable) -> SelectedVariable:
    return score.transpose(*heatmap_dims(score.dims))


def _without_unit(score: SelectedVariable) -> str:
    return subtitle(score).removesuffix(f" · unit {score.unit}")


def headline_variable(result: Result) -> str | None:
    """The variable of tables and summaries: ``effect`` for head roles, else the one drawn by default."""
    if result.info.kind == "head_roles" and "effect" in result.data:
        return "effect"
    return default_variable(result)
