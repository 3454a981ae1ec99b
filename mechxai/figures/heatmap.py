"""Heatmaps: two dims as one heatmap, three as several side by side or one with a slider."""

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechxai.core.errors import ConfigError
from mechxai.figures.axes import Axis, axis_of, horizontal, label_height, pixels, vertical
from mechxai.figures.colors import Scale, scale_of
from mechxai.figures.headings import hover, subtitle, title, unit_title
from mechxai.figures.role_codes import cell_text, legend, role_codes
from mechxai.figures.selected_variable import SelectedVariable, frame_dim, heatmap_dims
from mechxai.figures.theme import MISSING, dress

MAX_FACETS = 24
# With more cells, hover texts would make the file too large.
_MAX_HOVER = 40_000
_GAPS_UP_TO = 48


def heatmap(selected: SelectedVariable, scale: Scale) -> go.Figure:
    """Two dims as one heatmap, layers upward, with a colour bar."""
    row_dim, column_dim = heatmap_dims(selected.dims)
    rows, columns = axis_of(selected.array, row_dim), axis_of(selected.array, column_dim)
    figure = go.Figure(heatmap_trace(selected.transpose(row_dim, column_dim), with_hover=_has_hover(selected)))
    _grey_missing(figure, selected)
    size = _size(rows, columns)
    figure.update_layout(
        coloraxis=color_axis(selected, scale, size[1]),
        xaxis=horizontal(columns, size[0]),
        yaxis=vertical(rows, size[1]),
    )
    lines = [subtitle(selected), scale.note, *_notes(selected)]
    return dress(figure, title(selected), lines, size=size, room=(0, label_height(columns)))


def slider(selected: SelectedVariable, scale: Scale) -> go.Figure:
    """Three dims as one heatmap with a slider, which starts at the slice with the strongest cell."""
    along = frame_dim(selected.dims)
    row_dim, column_dim = heatmap_dims(tuple(dim for dim in selected.dims if dim != along))
    stack = selected.transpose(along, row_dim, column_dim)
    frames, rows, columns = (axis_of(selected.array, dim) for dim in (along, row_dim, column_dim))
    strength = np.nan_to_num(np.abs(stack.array.values - selected.center), nan=-1.0).max(axis=(1, 2))
    first, with_hover = int(strength.argmax()), _has_hover(selected)
    figure = go.Figure(
        [
            heatmap_trace(stack.at(along, at), with_hover=with_hover, visible=at == first)
            for at in range(len(frames.labels))
        ]
    )
    _grey_missing(figure, selected)
    size = _size(rows, columns)
    steps = [
        {"method": "restyle", "label": label, "args": ["visible", [at == step for at in range(len(frames.labels))]]}
        for step, label in enumerate(frames.labels)
    ]
    control = {
        "active": first,
        "currentvalue": {"prefix": f"{frames.title}: "},
        "steps": steps,
        "y": 0,
        "pad": {"t": 120 if columns.turned else 70},
    }
    figure.update_layout(
        coloraxis=color_axis(selected, scale, size[1]),
        xaxis=horizontal(columns, size[0]),
        yaxis=vertical(rows, size[1]),
        sliders=[control],
    )
    return dress(figure, title(selected), [subtitle(selected), scale.note, *_notes(selected)], size=size, room=(0, 130))


def facets(selected: SelectedVariable, scale: Scale) -> go.Figure:
    """Three dims as one heatmap per coordinate of one dim, on one colour scale.

    Raises:
        ConfigError: more than `MAX_FACETS` heatmaps.
    """
    along = frame_dim(selected.dims)
    row_dim, column_dim = heatmap_dims(tuple(dim for dim in selected.dims if dim != along))
    frames, rows, columns = (axis_of(selected.array, dim) for dim in (along, row_dim, column_dim))
    count = len(frames.labels)
    if count > MAX_FACETS:
        raise ConfigError(
            f"{count} facets over {along!r} do not fit one figure",
            allowed=f"up to {MAX_FACETS}",
            fix="Use kind='slider'",
        )
    across = min(count, 2 if len(columns.labels) > 14 else 4)
    down = -(-count // across)
    facet_size = (
        pixels(len(columns.labels), per_cell=22, least=150, most=420),
        pixels(len(rows.labels), per_cell=20, least=110, most=320),
    )
    size = (
        facet_size[0] * across + 70 * (across - 1),
        facet_size[1] * down + (120 if columns.turned else 80) * (down - 1),
    )
    figure = make_subplots(
        rows=down,
        cols=across,
        subplot_titles=[f"{frames.title} {label}" for label in frames.labels],
        horizontal_spacing=70 / size[0] if across > 1 else 0,
        vertical_spacing=(120 if columns.turned else 80) / size[1] if down > 1 else 0,
    )
    stack, with_hover = selected.transpose(along, row_dim, column_dim), _has_hover(selected)
    for at in range(count):
        figure.add_trace(
            heatmap_trace(stack.at(along, at), with_hover=with_hover), row=at // across + 1, col=at % across + 1
        )
    figure.update_annotations(font_size=13)
    figure.update_xaxes(horizontal(columns, facet_size[0]))
    figure.update_yaxes(vertical(rows, facet_size[1]))
    _grey_missing(figure, selected)
    figure.update_layout(coloraxis=color_axis(selected, scale, size[1]))
    lines = [subtitle(selected), scale.note, *_notes(selected)]
    return dress(figure, title(selected), lines, size=size, room=(24, label_height(columns)))


def heatmap_trace(selected: SelectedVariable, *, with_hover: bool = True, visible: bool = True) -> go.Heatmap:
    """The plotly trace of two dims, rows first, on the figure's shared colour axis."""
    shape = selected.array.shape
    marks = np.full(shape, "") if selected.marks is None else selected.marks.values
    gap = 1 if max(shape) <= _GAPS_UP_TO and np.isfinite(selected.array.values).all() else 0
    extra: dict[str, object] = {}
    if with_hover:
        texts = [hover(selected, cell, str(mark)) for cell, mark in zip(selected.cells(), marks.ravel(), strict=True)]
        extra = {"hovertext": np.array(texts, dtype=object).reshape(shape), "hoverinfo": "text"}
    if (marks != "").any():
        codes = role_codes(marks)
        extra |= {
            "text": [[cell_text(str(mark), codes) for mark in row] for row in marks],
            "texttemplate": "%{text}",
            "textfont": {"size": 11},
        }
    values = selected.array.values.astype(float)
    return go.Heatmap(z=values, coloraxis="coloraxis", xgap=gap, ygap=gap, visible=visible, **extra)


def color_axis(selected: SelectedVariable, scale: Scale, height: int) -> dict[str, object]:
    """Plotly's colour axis: the scale with its range, and a colour bar with the unit."""
    return {**scale.as_axis(), "colorbar": color_bar(unit_title(selected), height)}


def color_bar(text: str, height: int) -> dict[str, object]:
    """A colour bar with a title, beside a plotting area of ``height`` pixels."""
    place = {"lenmode": "pixels", "len": min(380, max(150, height)), "y": 1, "yanchor": "top"}
    return {"title": {"text": text}, **place}


def default_scale(selected: SelectedVariable, center: float | None = None) -> Scale:
    """The colour scale of the variable, around ``center`` or its own centre."""
    middle = selected.center if center is None else center
    return scale_of(selected.array.values, selected.name, metric=selected.info.method.get("metric"), center=middle)


def _size(rows: Axis, columns: Axis) -> tuple[int, int]:
    width = pixels(len(columns.labels), per_cell=36, least=330, most=900)
    return width, pixels(len(rows.labels), per_cell=34, least=150, most=620)


def _has_hover(selected: SelectedVariable) -> bool:
    return selected.array.size <= _MAX_HOVER


def _notes(selected: SelectedVariable) -> list[str]:
    marks = legend(selected.marks.values) if selected.marks is not None else ""
    return [marks, "" if np.isfinite(selected.array.values).all() else "grey: no value"]


def _grey_missing(figure: go.Figure, selected: SelectedVariable) -> None:
    if not np.isfinite(selected.array.values).all():
        figure.update_layout(plot_bgcolor=MISSING)
