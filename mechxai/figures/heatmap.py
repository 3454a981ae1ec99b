"""Two dims as a heatmap; three as heatmaps side by side or behind a slider."""

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechxai.core.errors import ConfigError
from mechxai.figures.axes import Axis, axis_of, below, beside, foot, pixels
from mechxai.figures.colors import Scale, scale_of
from mechxai.figures.headings import hover, subtitle, title, unit_title
from mechxai.figures.role_codes import codes, legend, short
from mechxai.figures.shown_variable import Shown, frame_dim, heatmap_dims
from mechxai.figures.theme import MISSING, dress

MAX_FACETS = 24
# Above this many cells, a text for each would outweigh the figure.
_MAX_HOVER = 40_000
_GAPS_UP_TO = 48


def heatmap(shown: Shown, scale: Scale) -> go.Figure:
    """Two dims: one heatmap, layers upward, with the colour's meaning at its side."""
    vertical, horizontal = heatmap_dims(shown.dims)
    rows, columns = axis_of(shown.array, vertical), axis_of(shown.array, horizontal)
    figure = go.Figure(layer(shown.arranged(vertical, horizontal), with_hover=_affordable(shown)))
    _missing(figure, shown)
    size = _size(rows, columns)
    figure.update_layout(
        coloraxis=color_axis(shown, scale, size[1]), xaxis=below(columns, size[0]), yaxis=beside(rows, size[1])
    )
    lines = [subtitle(shown), scale.note, *_notes(shown)]
    return dress(figure, title(shown), lines, size=size, room=(0, foot(columns)))


def slider(shown: Shown, scale: Scale) -> go.Figure:
    """Three dims: one heatmap at a time, chosen by a slider; it starts at the slice with the strongest cell."""
    along = frame_dim(shown.dims)
    vertical, horizontal = heatmap_dims(tuple(dim for dim in shown.dims if dim != along))
    stack = shown.arranged(along, vertical, horizontal)
    frames, rows, columns = (axis_of(shown.array, dim) for dim in (along, vertical, horizontal))
    strength = np.nan_to_num(np.abs(stack.array.values - shown.center), nan=-1.0).max(axis=(1, 2))
    first, with_hover = int(strength.argmax()), _affordable(shown)
    figure = go.Figure(
        [layer(stack.at(along, at), with_hover=with_hover, visible=at == first) for at in range(len(frames.labels))]
    )
    _missing(figure, shown)
    size = _size(rows, columns)
    steps = [
        {"method": "restyle", "label": label, "args": ["visible", [at == chosen for at in range(len(frames.labels))]]}
        for chosen, label in enumerate(frames.labels)
    ]
    control = {
        "active": first,
        "currentvalue": {"prefix": f"{frames.title}: "},
        "steps": steps,
        "y": 0,
        "pad": {"t": 120 if columns.turned else 70},
    }
    figure.update_layout(
        coloraxis=color_axis(shown, scale, size[1]),
        xaxis=below(columns, size[0]),
        yaxis=beside(rows, size[1]),
        sliders=[control],
    )
    return dress(figure, title(shown), [subtitle(shown), scale.note, *_notes(shown)], size=size, room=(0, 130))


def facets(shown: Shown, scale: Scale) -> go.Figure:
    """Three dims: a heatmap for every coordinate of one of them, on one colour scale.

    Raises:
        ConfigError: more than fit a page.
    """
    along = frame_dim(shown.dims)
    vertical, horizontal = heatmap_dims(tuple(dim for dim in shown.dims if dim != along))
    frames, rows, columns = (axis_of(shown.array, dim) for dim in (along, vertical, horizontal))
    count = len(frames.labels)
    if count > MAX_FACETS:
        raise ConfigError(
            f"Facets over {along!r} were asked",
            got=f"{count} of them",
            allowed=f"up to {MAX_FACETS}",
            fix="use kind='slider'",
        )
    across = min(count, 2 if len(columns.labels) > 14 else 4)
    down = -(-count // across)
    one = (
        pixels(len(columns.labels), per_cell=22, least=150, most=420),
        pixels(len(rows.labels), per_cell=20, least=110, most=320),
    )
    size = (one[0] * across + 70 * (across - 1), one[1] * down + (120 if columns.turned else 80) * (down - 1))
    figure = make_subplots(
        rows=down,
        cols=across,
        subplot_titles=[f"{frames.title} {label}" for label in frames.labels],
        horizontal_spacing=70 / size[0] if across > 1 else 0,
        vertical_spacing=(120 if columns.turned else 80) / size[1] if down > 1 else 0,
    )
    stack, with_hover = shown.arranged(along, vertical, horizontal), _affordable(shown)
    for at in range(count):
        figure.add_trace(layer(stack.at(along, at), with_hover=with_hover), row=at // across + 1, col=at % across + 1)
    figure.update_annotations(font_size=13)
    figure.update_xaxes(below(columns, one[0]))
    figure.update_yaxes(beside(rows, one[1]))
    _missing(figure, shown)
    figure.update_layout(coloraxis=color_axis(shown, scale, size[1]))
    lines = [subtitle(shown), scale.note, *_notes(shown)]
    return dress(figure, title(shown), lines, size=size, room=(24, foot(columns)))


def layer(shown: Shown, *, with_hover: bool = True, visible: bool = True) -> go.Heatmap:
    """The trace of two dims, rows first, on the figure's colour axis."""
    shape = shown.array.shape
    marks = np.full(shape, "") if shown.marks is None else shown.marks.values
    gap = 1 if max(shape) <= _GAPS_UP_TO and np.isfinite(shown.array.values).all() else 0
    extra: dict[str, object] = {}
    if with_hover:
        texts = [hover(shown, cell, str(mark)) for cell, mark in zip(shown.cells(), marks.ravel(), strict=True)]
        extra = {"hovertext": np.array(texts, dtype=object).reshape(shape), "hoverinfo": "text"}
    if (marks != "").any():
        found = codes(marks)
        extra |= {
            "text": [[short(str(mark), found) for mark in row] for row in marks],
            "texttemplate": "%{text}",
            "textfont": {"size": 11},
        }
    values = shown.array.values.astype(float)
    return go.Heatmap(z=values, coloraxis="coloraxis", xgap=gap, ygap=gap, visible=visible, **extra)


def color_axis(shown: Shown, scale: Scale, height: int) -> dict[str, object]:
    """The colour scale with its range, its bar and the unit."""
    return {**scale.as_axis(), "colorbar": color_bar(unit_title(shown), height)}


def color_bar(text: str, height: int) -> dict[str, object]:
    """A colour bar beside a drawing of this height, with its title."""
    place = {"lenmode": "pixels", "len": min(380, max(150, height)), "y": 1, "yanchor": "top"}
    return {"title": {"text": text}, **place}


def default_scale(shown: Shown, center: float | None = None) -> Scale:
    """The scale that fits the variable."""
    middle = shown.center if center is None else center
    return scale_of(shown.array.values, shown.name, metric=shown.info.method.get("metric"), center=middle)


def _size(rows: Axis, columns: Axis) -> tuple[int, int]:
    width = pixels(len(columns.labels), per_cell=36, least=330, most=900)
    return width, pixels(len(rows.labels), per_cell=34, least=150, most=620)


def _affordable(shown: Shown) -> bool:
    return shown.array.size <= _MAX_HOVER


def _notes(shown: Shown) -> list[str]:
    marks = legend(shown.marks.values) if shown.marks is not None else ""
    return [marks, "" if np.isfinite(shown.array.values).all() else "grey: no value"]


def _missing(figure: go.Figure, shown: Shown) -> None:
    if not np.isfinite(shown.array.values).all():
        figure.update_layout(plot_bgcolor=MISSING)
