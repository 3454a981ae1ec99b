"""Self-consistency: the votes of sampled chains of thought."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from mechxai.core.result import Result
from mechxai.figures.bands import add_band
from mechxai.figures.colors import LINES
from mechxai.figures.theme import QUIET, dress

_FEW_PROBLEMS = 8
_BINS = np.linspace(0.0, 1.0, 11).round(2)  # rounded, so that a share of 0.6 is not below the edge 0.6


def vote_figure(result: Result) -> go.Figure:
    """The majority's share of votes as a histogram, and accuracy by number of chains."""
    data = result.data
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.14)
    threshold = float(result.info.method.get("low", 0.6))  # pyright: ignore[reportArgumentType]  # a number by construction
    _histogram(figure, data, threshold)
    _accuracy(figure, data)
    n_low = int(data["low_agreement"].sum())
    line = (
        f"{n_low} of {len(data['prompt'])} problems have a majority below {threshold:.0%} of the votes (dotted); 95 % "
        "over problems"
    )
    title = f"Votes of {result.info.method.get('samples')} sampled chains, {result.info.model.get('name')}"
    dress(figure, title, [line], size=(760, 340), room=(30, 0))
    return figure.update_layout(barmode="stack")


def _histogram(figure: go.Figure, data: xr.Dataset, threshold: float) -> None:
    right = data["per_example"].values > 0
    for mask, name, color in ((right, "majority right", LINES[0]), (~right, "majority wrong", LINES[1])):
        counts, _ = np.histogram(data["vote_share"].values[mask], _BINS)
        figure.add_bar(
            x=(_BINS[:-1] + _BINS[1:]) / 2,
            y=counts,
            name=name,
            marker_color=color,
            hovertemplate=f"{name}<br>around %{{x:.0%}}: %{{y}} problems<extra></extra>",
            row=1,
            col=1,
        )
    edge = {"xref": "x", "x0": threshold, "x1": threshold, "yref": "y domain", "y0": 0, "y1": 1}
    figure.add_shape(type="line", line={"color": QUIET, "dash": "dot"}, **edge)
    figure.update_xaxes(title_text="majority's share of the votes", tickformat=".0%", range=[0, 1], row=1, col=1)
    figure.update_yaxes(title_text="problems", dtick=1 if len(right) < _FEW_PROBLEMS else None, row=1, col=1)


def _accuracy(figure: go.Figure, data: xr.Dataset) -> None:
    x = data["n_samples"].values
    ends = (data["accuracy_by_n_low"].values, data["accuracy_by_n_high"].values)
    add_band(figure, x, ends, color=LINES[0], col=2)
    figure.add_scatter(
        x=x,
        y=data["accuracy_by_n"].values,
        mode="lines+markers",
        line={"color": LINES[0]},
        showlegend=False,
        hovertemplate="%{x} chains: %{y:.0%}<extra></extra>",
        row=1,
        col=2,
    )
    for name, text in (("accuracy_greedy", "greedy chain"), ("accuracy_no_chain", "no chain")):
        at = {"xref": "x2 domain", "x0": 0, "x1": 1, "y0": float(data[name]), "y1": float(data[name]), "yref": "y2"}
        figure.add_shape(type="line", line={"color": QUIET, "dash": "dot", "width": 1}, **at)
        note = {"text": text, "font": {"size": 10, "color": QUIET}, "showarrow": False, "yanchor": "bottom"}
        figure.add_annotation(x=1, xref="x2 domain", xanchor="right", y=float(data[name]), yref="y2", **note)
    figure.update_xaxes(title_text="number of chains", row=1, col=2)
    figure.update_yaxes(title_text="accuracy of the majority", tickformat=".0%", row=1, col=2)
