"""Faithfulness of attributions: deletion and insertion curves with random rankings as the baseline."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from mechxai.core.result import Result
from mechxai.figures.bands import add_band
from mechxai.figures.colors import LINES
from mechxai.figures.text import number, words
from mechxai.figures.theme import INK, QUIET, dress

_CURVES = (("deletion", "share of players removed"), ("insertion", "share of players inserted"))
_GAINS = ("comprehensiveness", "sufficiency")


def faithfulness_figure(result: Result) -> go.Figure:
    """Deletion and insertion curves of every method and of random rankings; for a comparison, also each method's gain.

    Args:
        result: of `Faithfulness` or `CompareAttributions`.
    """
    several = "method" in result.data.dims
    expanded = {} if several else {curve: result.data[curve].expand_dims("method") for curve, _ in _CURVES}
    data = result.data.assign(expanded)
    names = [str(name) for name in np.atleast_1d(data["method"].values)]
    titles = ["deletion, highest first", "insertion, highest first", *(["gain over random"] * several)]
    figure = make_subplots(rows=1, cols=len(titles), subplot_titles=titles, horizontal_spacing=0.14 if several else 0.1)
    for col, (curve, title) in enumerate(_CURVES, start=1):
        _random_curve(figure, data, curve, col=col)
        for index, name in enumerate(names):
            line = {"color": LINES[index % len(LINES)], "dash": "solid" if index < len(LINES) else "dash"}
            values = data[curve].isel(method=index).values
            figure.add_scatter(
                x=data["share"].values,
                y=values,
                name=words(name),
                legendgroup=name,
                showlegend=col == 1,
                line=line,
                mode="lines",
                hovertemplate=f"{words(name)}<br>%{{x:.0%}}: %{{y:.3g}}<extra></extra>",
                row=1,
                col=col,
            )
        figure.update_xaxes(title_text=title, tickformat=".0%", row=1, col=col)
    unit = str(data["deletion"].attrs["units"])
    figure.update_yaxes(title_text=f"{words(str(result.info.method.get('metric')))} ({unit})", row=1, col=1)
    if several:
        _gains(figure, data, names)
    lines = [
        _description(result, data),
        "grey: random rankings, 95 % over prompts; whiskers: paired 95 % bootstrap over prompts",
    ]
    figure.update_annotations(font_size=13)
    height = 280 if len(names) < 6 else 340
    dress(
        figure,
        _title(result, names),
        lines,
        size=((340 if several else 300) * len(titles), height),
        room=(84 if several else 40, 0),
    )
    return figure.update_layout(legend={"y": 1 + 24 / height})


def _random_curve(figure: go.Figure, data: xr.Dataset, curve: str, *, col: int) -> None:
    """Adds the curve of random rankings with its interval."""
    x = data["share"].values
    low, high = (data[f"{curve}_random_{end}"].values for end in ("low", "high"))
    add_band(figure, x, (low, high), color=QUIET, col=col)
    figure.add_scatter(
        x=x,
        y=data[f"{curve}_random"].values,
        line={"color": QUIET, "dash": "dot"},
        mode="lines",
        name="random",
        showlegend=col == 1,
        row=1,
        col=col,
    )


def _gains(figure: go.Figure, data: xr.Dataset, names: list[str]) -> None:
    """Each method's gain over random rankings in two measures."""
    for offset, (measure, color) in enumerate(zip(_GAINS, (INK, LINES[1]), strict=True)):
        values, low, high = (data[f"{measure}_gain{end}"].values for end in ("", "_low", "_high"))
        figure.add_scatter(
            x=values,
            y=[at + 0.18 * (2 * offset - 1) for at in range(len(names))],
            mode="markers",
            marker={"color": color, "size": 7, "symbol": "circle" if not offset else "diamond"},
            error_x={"type": "data", "array": high - values, "arrayminus": values - low, "thickness": 1.2, "width": 3},
            name=measure,
            hovertext=[
                f"{words(n)}<br>{measure} {number(float(v))} better" for n, v in zip(names, values, strict=True)
            ],
            hoverinfo="text",
            row=1,
            col=3,
        )
    labels = [words(name) for name in names]
    figure.update_yaxes(
        tickmode="array", tickvals=list(range(len(names))), ticktext=labels, autorange="reversed", row=1, col=3
    )
    figure.update_xaxes(title_text=str(data["comprehensiveness_gain"].attrs["units"]), zeroline=True, row=1, col=3)
    edge = {"x": [0, 0], "y": [-0.5, len(names) - 0.5], "mode": "lines", "hoverinfo": "skip", "showlegend": False}
    figure.add_scatter(**edge, line={"color": QUIET, "width": 1, "dash": "dot"}, row=1, col=3)


def _title(result: Result, names: list[str]) -> str:
    model = result.info.model.get("name")
    subject = words(names[0]) if len(names) == 1 else "attribution methods"
    return f"Faithfulness of {subject} on {model}"


def _description(result: Result, data: xr.Dataset) -> str:
    baseline = result.info.method.get("baseline")
    return f"{data.sizes['prompt']} prompts of {result.info.task.get('name')}; baseline of removed players: {baseline}"
