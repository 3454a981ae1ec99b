"""Whether attributions are true: curves of players gone and come, and measures beside random rankings."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from mechxai.core.result import Result
from mechxai.figures.colors import LINES, faint
from mechxai.figures.text import number, words
from mechxai.figures.theme import INK, QUIET, dress

_CURVES = (("deletion", "share of players gone"), ("insertion", "share of players come"))
_GAINS = ("comprehensiveness", "sufficiency")


def is_judged(result: Result) -> bool:
    """Whether a result judges attributions."""
    return result.info.method.get("name") in ("faithfulness", "compare_attributions")


def judged_figure(result: Result) -> go.Figure:
    """Both curves of every method beside those of random rankings; of a comparison, how much better each method is."""
    several = "method" in result.data.dims
    widened = {} if several else {curve: result.data[curve].expand_dims("method") for curve, _ in _CURVES}
    data = result.data.assign(widened)
    names = [str(name) for name in np.atleast_1d(data["method"].values)]
    titles = ["players go, the first first", "players come, the first first", *(["better than random by"] * several)]
    figure = make_subplots(rows=1, cols=len(titles), subplot_titles=titles, horizontal_spacing=0.14 if several else 0.1)
    for col, (curve, title) in enumerate(_CURVES, start=1):
        _band(figure, data, curve, col=col)
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
        _about(result, data),
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


def _band(figure: go.Figure, data: xr.Dataset, curve: str, *, col: int) -> None:
    x = data["share"].values
    low, high = (data[f"{curve}_random_{end}"].values for end in ("low", "high"))
    figure.add_scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([high, low[::-1]]),
        fill="toself",
        fillcolor=faint(QUIET),
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
        row=1,
        col=col,
    )
    line = {"color": QUIET, "dash": "dot"}
    figure.add_scatter(
        x=x,
        y=data[f"{curve}_random"].values,
        line=line,
        mode="lines",
        name="random",
        showlegend=col == 1,
        row=1,
        col=col,
    )


def _gains(figure: go.Figure, data: xr.Dataset, names: list[str]) -> None:
    """By how much each method is better than random rankings, in two measures."""
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
    shown = [words(name) for name in names]
    figure.update_yaxes(
        tickmode="array", tickvals=list(range(len(names))), ticktext=shown, autorange="reversed", row=1, col=3
    )
    figure.update_xaxes(title_text=str(data["comprehensiveness_gain"].attrs["units"]), zeroline=True, row=1, col=3)
    edge = {"x": [0, 0], "y": [-0.5, len(names) - 0.5], "mode": "lines", "hoverinfo": "skip", "showlegend": False}
    figure.add_scatter(**edge, line={"color": QUIET, "width": 1, "dash": "dot"}, row=1, col=3)


def _title(result: Result, names: list[str]) -> str:
    model = result.info.model.get("name")
    return f"Is {words(names[0])} true to {model}?" if len(names) == 1 else f"Which attribution is true to {model}?"


def _about(result: Result, data: xr.Dataset) -> str:
    away = result.info.method.get("baseline")
    return f"{data.sizes['prompt']} prompts of {result.info.task.get('name')}; players are replaced by: {away}"
