"""Faithfulness of circuits by size, compared with random circuits."""

import plotly.graph_objects as go

from mechxai.core.result import Result
from mechxai.figures.bands import add_band
from mechxai.figures.colors import LINES
from mechxai.figures.text import number, words
from mechxai.figures.theme import QUIET, dress


def circuit_curve(result: Result) -> go.Figure:
    """Faithfulness by share of edges with its interval, and the range of random circuits.

    Args:
        result: of `EvaluateCircuit`.
    """
    data = result.data
    x, figure = data["fraction"].values, go.Figure()
    random = data["random_faithfulness"].values
    if random.shape[1]:
        add_band(figure, x, (random.min(1), random.max(1)), color=QUIET)
        figure.add_scatter(
            x=x, y=random.mean(1), name="random circuits", mode="lines", line={"color": QUIET, "dash": "dot"},
            hovertemplate="random, %{x:.1%}: %{y:.3f}<extra></extra>",
        )  # fmt: skip
    add_band(figure, x, (data["faithfulness_low"].values, data["faithfulness_high"].values), color=LINES[0])
    figure.add_scatter(
        x=x,
        y=data["faithfulness"].values,
        name=words(_edge_method(result)),
        mode="lines+markers",
        line={"color": LINES[0], "width": 2.5},
        customdata=data["n_edges"].values,
        hovertemplate="%{x:.1%} of the edges, %{customdata} after pruning: %{y:.3f}<extra></extra>",
    )
    for level in (0, 1):
        figure.add_hline(y=level, line={"color": QUIET, "width": 1, "dash": "dash"})
    figure.update_xaxes(type="log", title_text="share of the edges", tickformat=".1%", tickvals=x)
    figure.update_yaxes(title_text="faithfulness (1: the full model)")
    areas = [f"CPR {number(float(data['cpr']))}"]
    areas += [f"random {number(float(data['cpr_random'].mean()))}"] if random.shape[1] else []
    areas += [f"CMD {number(float(data['cmd']))}"]
    areas += [f"AUROC {number(float(data['auroc']))}"] if "auroc" in data else []
    lines = [
        " · ".join([str(result.info.model.get("name")), str(result.info.task.get("name")), *areas]),
        "band: 95 % bootstrap over prompts; grey: random circuits of the same size (range); ablated edges carry: "
        f"{result.info.method.get('reference')}",
    ]
    return dress(figure, "Faithfulness of circuits by size", lines, size=(620, 320), room=(30, 0))


def _edge_method(result: Result) -> str:
    """The method that ranked the edges, without its settings."""
    return str(result.info.method.get("of")).split("(", maxsplit=1)[0]
