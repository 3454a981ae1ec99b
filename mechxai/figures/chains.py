"""Chains of thought: answers along a chain, what flows through its steps, and how drawn chains vote."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from mechxai.core.result import Result
from mechxai.figures.colors import AGAINST, LINES, TOWARDS, faint
from mechxai.figures.text import words, wrapped
from mechxai.figures.theme import QUIET, dress

_CURVES = ("early_answering", "adding_mistakes", "paraphrasing", "filler_tokens")
_AS_CHAIN = "as with the chain"
_CLEAR = 0.05  # a share of the answer that gets a colour
_LABEL_WIDTH = 18  # characters
_FEW_PROBLEMS = 8
_NOTHING = ("nothing to measure", "the chain is not shown to help")
_BINS = np.linspace(0.0, 1.0, 11).round(2)  # 0.6 itself, that nothing falls below it


def is_chain_curve(result: Result) -> bool:
    """Whether a result holds answers along a chain that is changed."""
    return result.info.method.get("name") in _CURVES


def chain_curve(result: Result) -> go.Figure:
    """Agreement with the whole chain's answer by how much of the chain there is; beside it controls and accuracies."""
    data = result.data
    figure = make_subplots(rows=1, cols=2, column_widths=[0.62, 0.38], horizontal_spacing=0.2)
    x = data["fraction"].values
    low, high = data["agreement_low"].values, data["agreement_high"].values
    figure.add_scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([high, low[::-1]]),
        mode="lines",
        fill="toself",
        fillcolor=faint(LINES[0]),
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
    )
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
    figure.update_yaxes(
        title_text="answers as with the whole chain", tickformat=".0%", range=[-0.05, 1.08], row=1, col=1
    )
    said = f"area over the curve {_interval(data, 'aoc')}; 95 % over {len(data['prompt'])} problems"
    title = f"{words(str(result.info.method['name'])).capitalize()}, {_of(result)}"
    dress(figure, title, [said, _gate(result)], size=(760, 360), room=(26, 0))
    return figure.update_layout(legend={"x": 1, "xanchor": "right"})


def _accuracies(figure: go.Figure, data: xr.Dataset) -> None:
    """Right answers with the chain, without, and with others; and how often these give the chain's answer."""
    controls = [str(name) for name in data["control"].values]
    names = ["with the chain", *(f"{name} chain" if name != "none" else "no chain" for name in controls)]
    whole = (float(data["accuracy"]), float(data["accuracy_low"]), float(data["accuracy_high"]))
    for row, (variable, name) in enumerate((("control_accuracy", "right"), ("control_agreement", _AS_CHAIN))):
        ends = [data[f"{variable}{end}"].values for end in ("", "_low", "_high")]
        values, lows, highs = (
            [*([one] if not row else []), *map(float, own)] for one, own in zip(whole, ends, strict=True)
        )
        at = [place + 0.14 * (2 * row - 1) for place in range(row, len(names))]
        _dots(figure, at, values, list(zip(lows, highs, strict=True)), col=2, name=name)
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names, range=[len(names) - 0.5, -0.5], row=1, col=2)
    figure.update_xaxes(title_text="share of answers", tickformat=".0%", range=[-0.05, 1.08], row=1, col=2)


def _named(figure: go.Figure, names: list[str], values: list[float], ends: list[tuple[float, float]]) -> None:  # noqa: PLR0917
    """Values with whiskers, one to a line, the first at the top."""
    at = [float(place) for place in range(len(names))]
    _dots(figure, at, values, ends, col=1)
    figure.update_yaxes(tickvals=at, ticktext=names, range=[len(names) - 0.5, -0.5])


def _dots(  # noqa: PLR0917 - what points and whiskers take
    figure: go.Figure,
    at: Sequence[float],
    values: Sequence[float],
    ends: Sequence[tuple[float, float]],
    *,
    col: int,
    name: str = "",
) -> None:
    figure.add_scatter(
        x=values,
        y=at,
        mode="markers",
        marker={"color": LINES[name == _AS_CHAIN], "size": 8, "symbol": "diamond" if name == _AS_CHAIN else "circle"},
        error_x={
            "type": "data",
            "array": [high - value for value, (_, high) in zip(values, ends, strict=True)],
            "arrayminus": [value - low for value, (low, _) in zip(values, ends, strict=True)],
            "thickness": 1.2,
            "width": 3,
        },
        name=name,
        showlegend=bool(name),
        hovertemplate="%{x:.0%}<extra></extra>",
        row=1,
        col=col,
    )


def is_planted(result: Result) -> bool:
    """Whether a result says what became of planted errors."""
    return result.info.method.get("name") == "planted_error"


def planted_figure(result: Result) -> go.Figure:
    """What became of the answers after an error, and without one."""
    data = result.data
    names = ["follows the error", "keeps its answer", "something else", "objects", "kept, nothing wrong said"]
    values = [*map(float, data["value"].values), float(data["noticed"]), float(data["placebo"])]
    lows = [*map(float, data["value_low"].values), float(data["noticed_low"]), float(data["placebo_low"])]
    highs = [*map(float, data["value_high"].values), float(data["noticed_high"]), float(data["placebo_high"])]
    figure = make_subplots(rows=1, cols=1)
    _named(figure, names, values, list(zip(lows, highs, strict=True)))
    figure.update_xaxes(title_text="share of planted errors", tickformat=".0%", range=[-0.05, 1.08])
    said = f"95 % over {len(data['prompt'])} problems"
    return dress(figure, f"One step said wrong, {_of(result)}", [said, _gate(result)], size=(560, 300))


def is_flow(result: Result) -> bool:
    """Whether a result says how much of an answer flows through each step."""
    return result.info.method.get("name") == "chain_flow"


def flow_figure(result: Result) -> go.Figure:
    """A bar per part of the prompt, and a map by layer."""
    data = result.data
    parts = _labels(data)
    with_layers = "flow" in data
    figure = make_subplots(
        rows=1 + with_layers,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.08,
        row_heights=[0.55, 0.45][: 1 + with_layers],
    )
    values, low, high = (data[f"recovered{end}"].values for end in ("", "_low", "_high"))
    figure.add_bar(
        x=parts,
        y=values,
        marker_color=[TOWARDS if value >= 0 else AGAINST for value in values],
        error_y={"type": "data", "array": high - values, "arrayminus": values - low, "thickness": 1.2, "width": 3},
        hovertemplate="%{x}: %{y:.0%}<extra></extra>",
        showlegend=False,
    )
    figure.update_yaxes(title_text="share of the answer", tickformat=".0%", row=1, col=1)
    if with_layers:
        figure.add_heatmap(
            x=parts,
            y=data["layer"].values,
            z=data["flow"].values,
            coloraxis="coloraxis",
            hovertemplate="%{x}, layer %{y}: %{z:.0%}<extra></extra>",
            row=2,
            col=1,
        )
        figure.update_yaxes(title_text="layer", dtick=1, row=2, col=1)
        stops = [[0, "#b2182b"], [0.5, "#f7f7f7"], [1, "#2166ac"]]
        figure.update_layout(
            coloraxis={
                "colorscale": stops,
                "cmin": -1,
                "cmax": 1,
                "colorbar": {"tickformat": ".0%", "len": 0.45, "y": 0.2},
            }
        )
    verb = "taken from" if result.info.method.get("direction") == "noise" else "put into"
    said = f"each part's activations {verb} the run of another problem, at all layers; below, at one layer alone"
    title = f"What the answer flows through, {_of(result)}"
    return dress(
        figure,
        title,
        [said, f"95 % over {len(data['prompt'])} pairs of problems"],
        size=(640, 460 if with_layers else 300),
    )


def _labels(data: xr.Dataset) -> list[str]:
    """The parts' names over what the first pair says there, in the colour of the effect."""
    found = []
    for part, text, share in zip(data["part"].values, data["text"].values[0], data["recovered"].values, strict=True):
        color = TOWARDS if share > _CLEAR else AGAINST if share < -_CLEAR else QUIET
        lines = "<br>".join(wrapped(str(text), _LABEL_WIDTH))
        found.append(f"{words(str(part)).lower()}<br><span style='color:{color}'>{lines}</span>")
    return found


def is_vote(result: Result) -> bool:
    """Whether a result holds votes of drawn chains."""
    return result.info.method.get("name") == "self_consistency"


def vote_figure(result: Result) -> go.Figure:
    """How sure the votes are, right and wrong ones apart, and accuracy by the number of chains."""
    data = result.data
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.14)
    right = data["per_example"].values > 0
    for chosen, name, color in ((right, "majority right", LINES[0]), (~right, "majority wrong", LINES[1])):
        counts, _ = np.histogram(data["vote_share"].values[chosen], _BINS)
        figure.add_bar(
            x=(_BINS[:-1] + _BINS[1:]) / 2,
            y=counts,
            name=name,
            marker_color=color,
            hovertemplate=f"{name}<br>around %{{x:.0%}}: %{{y}} problems<extra></extra>",
            row=1,
            col=1,
        )
    low = float(result.info.method.get("low", 0.6))  # pyright: ignore[reportArgumentType]  # a number by construction
    edge = {"xref": "x", "x0": low, "x1": low, "yref": "y domain", "y0": 0, "y1": 1}
    figure.add_shape(type="line", line={"color": QUIET, "dash": "dot"}, **edge)
    x, values = data["n_samples"].values, data["accuracy_by_n"].values
    ends = data["accuracy_by_n_low"].values, data["accuracy_by_n_high"].values
    figure.add_scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([ends[1], ends[0][::-1]]),
        mode="lines",
        fill="toself",
        fillcolor=faint(LINES[0]),
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
        row=1,
        col=2,
    )
    figure.add_scatter(
        x=x,
        y=values,
        mode="lines+markers",
        line={"color": LINES[0]},
        showlegend=False,
        hovertemplate="%{x} chains: %{y:.0%}<extra></extra>",
        row=1,
        col=2,
    )
    for name, text in (("accuracy_greedy", "likeliest chain"), ("accuracy_no_chain", "no chain")):
        at = {"xref": "x2 domain", "x0": 0, "x1": 1, "y0": float(data[name]), "y1": float(data[name]), "yref": "y2"}
        figure.add_shape(type="line", line={"color": QUIET, "dash": "dot", "width": 1}, **at)
        note = {"text": text, "font": {"size": 10, "color": QUIET}, "showarrow": False, "yanchor": "bottom"}
        figure.add_annotation(x=1, xref="x2 domain", xanchor="right", y=float(data[name]), yref="y2", **note)
    figure.update_xaxes(title_text="share of the majority's votes", tickformat=".0%", range=[0, 1], row=1, col=1)
    figure.update_yaxes(title_text="problems", dtick=1 if len(right) < _FEW_PROBLEMS else None, row=1, col=1)
    figure.update_xaxes(title_text="chains that vote", row=1, col=2)
    figure.update_yaxes(title_text="right majorities", tickformat=".0%", row=1, col=2)
    flagged = int(data["low_agreement"].sum())
    said = f"{flagged} of {len(data['prompt'])} problems have under {low:.0%} of the votes (dotted); 95 % over problems"
    title = f"{result.info.method.get('samples')} chains vote, {_of(result)}"
    dress(figure, title, [said], size=(760, 340), room=(30, 0))
    return figure.update_layout(barmode="stack")


def is_biased(result: Result) -> bool:
    """Whether a result says what a bias does."""
    return result.info.method.get("name") == "biasing_feature"


def biased_figure(result: Result) -> go.Figure:
    """What the bias moves and costs, and whether chains speak of it."""
    data = result.data
    shown = {
        "moved to the tempting answer": "moved",
        "the same without a chain": "moved_no_chain",
        "right answers lost": "drop",
        "chains that speak of the bias": "mentions",
    }
    figure = make_subplots(rows=1, cols=1)
    _named(
        figure,
        list(shown),
        [float(data[name]) for name in shown.values()],
        [(float(data[f"{name}_low"]), float(data[f"{name}_high"])) for name in shown.values()],
    )
    figure.update_xaxes(tickformat=".0%", range=[-1.05 if float(data["moved"]) < 0 else -0.05, 1.08])
    said = f"95 % over {len(data['prompt'])} problems"
    title = f"A wrong answer made tempting ({words(str(result.info.method.get('kind')))}), {_of(result)}"
    return dress(figure, title, [said, _gate(result)], size=(560, 290))


def _interval(data: xr.Dataset, name: str) -> str:
    value, low, high = (float(data[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def _of(result: Result) -> str:
    return str(result.info.model.get("name"))


def _gate(result: Result) -> str:
    return next((note for note in result.info.notes if note.startswith(_NOTHING)), "")
