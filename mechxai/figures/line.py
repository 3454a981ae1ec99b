"""One dim as a line with its bootstrap band, or as bars with whiskers; two dims as a line for each coordinate."""

import numpy as np
import plotly.graph_objects as go

from mechxai.core.errors import ConfigError
from mechxai.figures.axes import Axis, axis_of, below, pixels
from mechxai.figures.cells import coordinates
from mechxai.figures.colors import AGAINST, LINES, TOWARDS, faint
from mechxai.figures.headings import hover, subtitle, title, unit_title
from mechxai.figures.shown_variable import Shown, heatmap_dims
from mechxai.figures.text import number, safe
from mechxai.figures.theme import INK, QUIET, dress

MAX_LINES = 16
MAX_BARS = 60
_HEIGHT = 320
_BASELINES = {"clean": "dash", "corrupted": "dot"}


def line(shown: Shown) -> go.Figure:
    """One dim along the x axis; a second, when there is one, as separate lines.

    Raises:
        ConfigError: more lines than can be told apart.
    """
    if len(shown.dims) == 1:
        parts, along = {"": shown}, shown.dims[0]
    else:
        along, other = heatmap_dims(shown.dims)
        count = shown.array.sizes[other]
        if count > MAX_LINES:
            raise ConfigError(
                f"Lines over {other!r} were asked",
                got=f"{count} of them",
                allowed=f"up to {MAX_LINES}",
                fix="use kind='heatmap'",
            )
        axis = axis_of(shown.array, other)
        named = [label if axis.texts else f"{axis.title} {label}" for label in axis.labels]
        parts = {name: shown.at(other, at) for at, name in enumerate(named)}
    columns = axis_of(shown.array, along)
    places = _places(shown, along)
    figure = go.Figure()
    for at, (name, part) in enumerate(parts.items()):
        _draw_line(figure, part, places=places, name=name, color=LINES[at % len(LINES)])
    _baselines(figure, shown)
    width = pixels(len(columns.labels), per_cell=36, least=460, most=900)
    settings = below(columns, width) if columns.texts else _numeric(columns, places)
    return _finish(figure, shown, settings, width=width)


def bars(shown: Shown) -> go.Figure:
    """One dim (or none) as bars with whiskers, for coordinates without an order; they start where nothing happened.

    Of more bars than can be read, the longest are drawn.
    """
    total = shown.array.size
    if total > MAX_BARS:
        far = np.argsort(-np.nan_to_num(np.abs(shown.array.values - shown.center)), kind="stable")[:MAX_BARS]
        shown = shown.at(shown.dims[0], np.sort(far).tolist())
    columns = axis_of(shown.array, shown.dims[0]) if shown.dims else Axis("", (safe(shown.name),), texts=True)
    values = np.atleast_1d(shown.array.values).astype(float)
    figure = go.Figure(
        go.Bar(
            x=np.arange(len(values)),
            y=values - shown.center,
            base=shown.center,
            marker={"color": [TOWARDS if value >= shown.center else AGAINST for value in values]},
            error_y=_whiskers(shown),
            hovertext=[hover(shown, cell) for cell in shown.cells()],
            hoverinfo="text",
            showlegend=False,
        )
    )
    _baselines(figure, shown)
    width = pixels(len(columns.labels), per_cell=30, least=380, most=900)
    settings = below(columns, width)
    if len(values) < 3:
        settings["range"] = [-1.5, len(values) + 0.5]
    left_out = f"the {MAX_BARS} largest of {total:,}" if total > MAX_BARS else ""
    return _finish(figure, shown, settings, width=width, note=left_out)


def _draw_line(figure: go.Figure, shown: Shown, *, places: list[float], name: str, color: str) -> None:
    if shown.low is not None and shown.high is not None:
        edge = {"x": places, "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
        figure.add_trace(go.Scatter(y=shown.low.values.astype(float), **edge))
        figure.add_trace(go.Scatter(y=shown.high.values.astype(float), fill="tonexty", fillcolor=faint(color), **edge))
    figure.add_trace(
        go.Scatter(
            x=places,
            y=shown.array.values.astype(float),
            mode="lines+markers" if len(places) <= 64 else "lines",
            line={"color": color, "width": 2.2},
            marker={"size": 6},
            name=name,
            hovertext=[hover(shown, cell) for cell in shown.cells()],
            hoverinfo="text",
            showlegend=bool(name),
        )
    )


def _baselines(figure: go.Figure, shown: Shown) -> None:
    for run, mean in shown.baselines.items():
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
    if shown.baselines:
        # An axis of its own, always 0 to 1: the lines cross the whole figure at any zoom.
        figure.update_layout(xaxis2={"overlaying": "x", "range": [0, 1], "visible": False, "fixedrange": True})


def _finish(figure: go.Figure, shown: Shown, settings: dict[str, object], *, width: int, note: str = "") -> go.Figure:
    figure.update_layout(xaxis=settings, yaxis={"title": {"text": unit_title(shown, gap=" ")}})
    figure.add_hline(y=shown.center, line={"color": INK, "width": 1}, layer="below")
    has_legend = len(shown.dims) > 1 or bool(shown.baselines)
    drawn = "whiskers" if isinstance(figure.data[0], go.Bar) else "band"
    band = f"{drawn}: 95 % bootstrap interval over prompts" if shown.low is not None else ""
    return dress(
        figure, title(shown), [subtitle(shown), band, note], size=(width, _HEIGHT), room=(30 if has_legend else 0, 0)
    )


def _places(shown: Shown, dim: str) -> list[float]:
    along = coordinates(shown.array, dim)
    numbers = [float(value) for value in along if isinstance(value, (int, float))]
    return numbers if len(numbers) == len(along) else [float(at) for at in range(len(along))]


def _numeric(columns: Axis, places: list[float]) -> dict[str, object]:
    whole = all(place == int(place) for place in places)
    span = max(places, default=0.0) - min(places, default=0.0)
    return {"title": {"text": columns.title}, **({"dtick": 1} if whole and span <= 26 else {})}


def _whiskers(shown: Shown) -> dict[str, object] | None:
    if shown.low is None or shown.high is None:
        return None
    low, middle, high = (np.atleast_1d(part.values).astype(float) for part in (shown.low, shown.array, shown.high))
    return {
        "type": "data",
        "array": high - middle,
        "arrayminus": middle - low,
        "color": INK,
        "thickness": 1.2,
        "width": 3,
    }
