"""One dim as a line with its bootstrap band or as bars with whiskers; two dims as one line per coordinate."""

import numpy as np
import plotly.graph_objects as go

from mechxai.core.errors import ConfigError
from mechxai.figures.axes import Axis, axis_of, horizontal, pixels
from mechxai.figures.cells import coordinates
from mechxai.figures.colors import AGAINST, LINES, TOWARDS, faint
from mechxai.figures.headings import hover, subtitle, title, unit_title
from mechxai.figures.selected_variable import SelectedVariable, heatmap_dims
from mechxai.figures.text import number, safe
from mechxai.figures.theme import INK, QUIET, dress

MAX_LINES = 16
MAX_BARS = 60
_HEIGHT = 320
_BASELINES = {"clean": "dash", "corrupted": "dot"}


def line(selected: SelectedVariable) -> go.Figure:
    """One dim along the x axis; a second dim as separate lines.

    Raises:
        ConfigError: more than `MAX_LINES` lines.
    """
    if len(selected.dims) == 1:
        parts, along = {"": selected}, selected.dims[0]
    else:
        along, other = heatmap_dims(selected.dims)
        count = selected.array.sizes[other]
        if count > MAX_LINES:
            raise ConfigError(
                f"{count} lines over {other!r} cannot be told apart",
                allowed=f"up to {MAX_LINES}",
                fix="Use kind='heatmap'",
            )
        axis = axis_of(selected.array, other)
        names = [label if axis.texts else f"{axis.title} {label}" for label in axis.labels]
        parts = {name: selected.at(other, at) for at, name in enumerate(names)}
    columns = axis_of(selected.array, along)
    places = _places(selected, along)
    figure = go.Figure()
    for at, (name, part) in enumerate(parts.items()):
        _draw_line(figure, part, places=places, name=name, color=LINES[at % len(LINES)])
    _baselines(figure, selected)
    width = pixels(len(columns.labels), per_cell=36, least=460, most=900)
    settings = horizontal(columns, width) if columns.texts else _numeric_axis(columns, places)
    return _finish(figure, selected, settings, width=width)


def bars(selected: SelectedVariable) -> go.Figure:
    """One dim without an order (or a single number) as bars with whiskers, which start at the value of no effect.

    Of more than `MAX_BARS` bars, the longest are drawn.
    """
    total = selected.array.size
    if total > MAX_BARS:
        longest = np.argsort(-np.nan_to_num(np.abs(selected.array.values - selected.center)), kind="stable")[:MAX_BARS]
        selected = selected.at(selected.dims[0], np.sort(longest).tolist())
    columns = (
        axis_of(selected.array, selected.dims[0]) if selected.dims else Axis("", (safe(selected.name),), texts=True)
    )
    values = np.atleast_1d(selected.array.values).astype(float)
    figure = go.Figure(
        go.Bar(
            x=np.arange(len(values)),
            y=values - selected.center,
            base=selected.center,
            marker={"color": [TOWARDS if value >= selected.center else AGAINST for value in values]},
            error_y=_whiskers(selected),
            hovertext=[hover(selected, cell) for cell in selected.cells()],
            hoverinfo="text",
            showlegend=False,
        )
    )
    _baselines(figure, selected)
    width = pixels(len(columns.labels), per_cell=30, least=380, most=900)
    settings = horizontal(columns, width)
    if len(values) < 3:
        settings["range"] = [-1.5, len(values) + 0.5]
    note = f"the {MAX_BARS} largest of {total:,}" if total > MAX_BARS else ""
    return _finish(figure, selected, settings, width=width, note=note)


def _draw_line(figure: go.Figure, selected: SelectedVariable, *, places: list[float], name: str, color: str) -> None:
    if selected.low is not None and selected.high is not None:
        edge = {"x": places, "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
        figure.add_trace(go.Scatter(y=selected.low.values.astype(float), **edge))
        figure.add_trace(
            go.Scatter(y=selected.high.values.astype(float), fill="tonexty", fillcolor=faint(color), **edge)
        )
    figure.add_trace(
        go.Scatter(
            x=places,
            y=selected.array.values.astype(float),
            mode="lines+markers" if len(places) <= 64 else "lines",
            line={"color": color, "width": 2.2},
            marker={"size": 6},
            name=name,
            hovertext=[hover(selected, cell) for cell in selected.cells()],
            hoverinfo="text",
            showlegend=bool(name),
        )
    )


def _baselines(figure: go.Figure, selected: SelectedVariable) -> None:
    for run, mean in selected.baselines.items():
        figure.add_trace(
            go.Scatter(
                x=[0, 1],
                y=[mean, mean],
                xaxis="x2",
                mode="lines",
                line={"color": QUIET, "width": 1.4, "dash": _BASELINES[run]},
                name=f"{run} run, {number(mean)}",
                hoverinfo="name",
            )
        )
    if selected.baselines:
        # A second x axis, fixed at 0 to 1, so that the lines cross the whole figure at any zoom.
        figure.update_layout(xaxis2={"overlaying": "x", "range": [0, 1], "visible": False, "fixedrange": True})


def _finish(
    figure: go.Figure, selected: SelectedVariable, settings: dict[str, object], *, width: int, note: str = ""
) -> go.Figure:
    figure.update_layout(xaxis=settings, yaxis={"title": {"text": unit_title(selected, gap=" ")}})
    figure.add_hline(y=selected.center, line={"color": INK, "width": 1}, layer="below")
    has_legend = len(selected.dims) > 1 or bool(selected.baselines)
    mark = "whiskers" if isinstance(figure.data[0], go.Bar) else "band"
    band = f"{mark}: 95 % bootstrap interval over prompts" if selected.low is not None else ""
    return dress(
        figure,
        title(selected),
        [subtitle(selected), band, note],
        size=(width, _HEIGHT),
        room=(30 if has_legend else 0, 0),
    )


def _places(selected: SelectedVariable, dim: str) -> list[float]:
    along = coordinates(selected.array, dim)
    numbers = [float(value) for value in along if isinstance(value, (int, float))]
    return numbers if len(numbers) == len(along) else [float(at) for at in range(len(along))]


def _numeric_axis(columns: Axis, places: list[float]) -> dict[str, object]:
    integers = all(place == int(place) for place in places)
    span = max(places, default=0.0) - min(places, default=0.0)
    return {"title": {"text": columns.title}, **({"dtick": 1} if integers and span <= 26 else {})}


def _whiskers(selected: SelectedVariable) -> dict[str, object] | None:
    if selected.low is None or selected.high is None:
        return None
    low, middle, high = (
        np.atleast_1d(part.values).astype(float) for part in (selected.low, selected.array, selected.high)
    )
    return {
        "type": "data",
        "array": high - middle,
        "arrayminus": middle - low,
        "color": INK,
        "thickness": 1.2,
        "width": 3,
    }
