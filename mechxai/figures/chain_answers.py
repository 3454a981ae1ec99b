"""Chains of thought: answers when the chain is changed, planted errors and biased questions."""

from collections.abc import Sequence

import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from mechxai.core.result import Result
from mechxai.figures.bands import add_band
from mechxai.figures.colors import LINES
from mechxai.figures.text import words
from mechxai.figures.theme import dress

_SAME_ANSWER = "same answer as with the chain"
# How the notes begin that say a result measures nothing; they are shown below the title.
_NOTES = ("nothing to measure", "the chain is not shown to help")
_SHARES = [-0.05, 1.08]  # range of an axis of shares
Interval = tuple[float, float]


def chain_curve(result: Result) -> go.Figure:
    """Agreement with the answer of the complete chain by the share of the chain, with controls and accuracies."""
    data = result.data
    figure = make_subplots(rows=1, cols=2, column_widths=[0.62, 0.38], horizontal_spacing=0.2)
    x = data["fraction"].values
    add_band(figure, x, (data["agreement_low"].values, data["agreement_high"].values), color=LINES[0], col=1)
    figure.add_scatter(
        x=x,
        y=data["agreement"].values,
        mode="lines+markers",
        line={"color": LINES[0]},
        showlegend=False,
        hovertemplate="%{x:.0%}: %{y:.0%} of problems<extra></extra>",
    )
    _accuracies(figure, data)
    figure.update_xaxes(title_text=str(data["fraction"].attrs["long_name"]), tickformat=".0%", row=1, col=1)
    figure.update_yaxes(title_text="same answer as with the full chain", tickformat=".0%", range=_SHARES, row=1, col=1)
    area = f"area over the curve {_interval_text(data, 'aoc')}; 95 % over {len(data['prompt'])} problems"
    title = f"{words(str(result.info.method['name'])).capitalize()}, {result.info.model.get('name')}"
    dress(figure, title, [area, _note(result)], size=(760, 360), room=(26, 0))
    return figure.update_layout(legend={"x": 1, "xanchor": "right"})


def planted_figure(result: Result) -> go.Figure:
    """Answers after a planted error, and after the same step without an error."""
    data = result.data
    names = ["follows the error", "keeps its answer", "another answer", "objects to the error", "keeps it (no error)"]
    values, lows, highs = (
        [*map(float, data[f"value{end}"].values), float(data[f"noticed{end}"]), float(data[f"placebo{end}"])]
        for end in ("", "_low", "_high")
    )
    figure = make_subplots(rows=1, cols=1)
    _named_points(figure, names, list(zip(values, zip(lows, highs, strict=True), strict=True)))
    figure.update_xaxes(title_text="share of planted errors", tickformat=".0%", range=_SHARES)
    subtitle = [f"95 % over {len(data['prompt'])} problems", _note(result)]
    return dress(figure, f"Planted errors, {result.info.model.get('name')}", subtitle, size=(560, 300))


def biasing_figure(result: Result) -> go.Figure:
    """The effect of a bias towards a wrong answer, its cost in accuracy, and how often chains mention it."""
    data = result.data
    shares = {
        "moved to the suggested answer": "moved",
        "moved, without a chain": "moved_no_chain",
        "accuracy lost": "drop",
        "chains that mention the bias": "mentions",
    }
    points = [
        (float(data[name]), (float(data[f"{name}_low"]), float(data[f"{name}_high"]))) for name in shares.values()
    ]
    figure = make_subplots(rows=1, cols=1)
    _named_points(figure, list(shares), points)
    figure.update_xaxes(tickformat=".0%", range=[-1.05 if float(data["moved"]) < 0 else -0.05, 1.08])
    title = (
        f"Bias towards a wrong answer ({words(str(result.info.method.get('kind')))}), {result.info.model.get('name')}"
    )
    return dress(figure, title, [f"95 % over {len(data['prompt'])} problems", _note(result)], size=(560, 290))


def _accuracies(figure: go.Figure, data: xr.Dataset) -> None:
    """Adds accuracy with the chain, without one and with the controls, and agreement with the chain's answer."""
    controls = [str(name) for name in data["control"].values]
    names = ["with the chain", *(f"{name} chain" if name != "none" else "no chain" for name in controls)]
    with_chain = (float(data["accuracy"]), float(data["accuracy_low"]), float(data["accuracy_high"]))
    for row, (variable, name) in enumerate((("control_accuracy", "right"), ("control_agreement", _SAME_ANSWER))):
        columns = [data[f"{variable}{end}"].values for end in ("", "_low", "_high")]
        values, lows, highs = (
            [*([chain] if not row else []), *map(float, column)]
            for chain, column in zip(with_chain, columns, strict=True)
        )
        at = [place + 0.14 * (2 * row - 1) for place in range(row, len(names))]
        points = list(zip(values, zip(lows, highs, strict=True), strict=True))
        _points(figure, at, points, col=2, name=name)
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names, range=[len(names) - 0.5, -0.5], row=1, col=2)
    figure.update_xaxes(title_text="share of answers", tickformat=".0%", range=_SHARES, row=1, col=2)


def _named_points(figure: go.Figure, names: list[str], points: list[tuple[float, Interval]]) -> None:
    """Adds a value with its interval per name, the first at the top."""
    at = [float(place) for place in range(len(names))]
    _points(figure, at, points, col=1)
    figure.update_yaxes(tickvals=at, ticktext=names, range=[len(names) - 0.5, -0.5])


def _points(
    figure: go.Figure, at: Sequence[float], points: Sequence[tuple[float, Interval]], *, col: int, name: str = ""
) -> None:
    """Adds values with whiskers at the given heights."""
    second = name == _SAME_ANSWER
    figure.add_scatter(
        x=[value for value, _ in points],
        y=at,
        mode="markers",
        marker={"color": LINES[second], "size": 8, "symbol": "diamond" if second else "circle"},
        error_x={
            "type": "data",
            "array": [high - value for value, (_, high) in points],
            "arrayminus": [value - low for value, (low, _) in points],
            "thickness": 1.2,
            "width": 3,
        },
        name=name,
        showlegend=bool(name),
        hovertemplate="%{x:.0%}<extra></extra>",
        row=1,
        col=col,
    )


def _interval_text(data: xr.Dataset, name: str) -> str:
    value, low, high = (float(data[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def _note(result: Result) -> str:
    return next((note for note in result.info.notes if note.startswith(_NOTES)), "")
