"""A circuit as a graph, layers upward, and how faithful circuits of growing size are, beside random ones."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from mechxai.core.errors import ConfigError
from mechxai.core.result import Result
from mechxai.figures.colors import AGAINST, LINES, TOWARDS, faint
from mechxai.figures.text import number, safe, words
from mechxai.figures.theme import INK, QUIET, dress

_NODE = re.compile(r"(?:a(?P<layer>\d+)\.(?:h(?P<head>\d+)|g(?P<group>\d+))|m(?P<mlp>\d+))(?:\.(?P<part>[qkv]))?")
_MOST = 50  # edges that can still be told apart
_WIDEST = 7.0
_SHIFT = {"q": -0.6, "k": 0.0, "v": 0.6}  # where edges into queries, keys and values end, in radii of a node
_RADIUS, _ROW, _COLUMN = 17, 84, 92  # pixels
_LEAST_ROW, _TALL = 48, 1200  # rows are closer in drawings that would be taller
_PARTS = {"q": "query", "k": "key", "v": "value"}


@dataclass(frozen=True)
class _Place:
    x: float
    y: float


@dataclass(frozen=True)
class _Scale:
    """The drawing's room.

    Attributes:
        x: least and largest place.
        y: likewise.
        size: in pixels.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    size: tuple[int, int]

    @staticmethod
    def of(places: Sequence[_Place]) -> "_Scale":
        """Room for every place, and as much around them as a node takes."""
        x, y = ([getattr(place, axis) for place in places] for axis in ("x", "y"))
        wide, high = (min(x) - 0.7, max(x) + 0.7), (min(y) - 0.5, max(y) + 0.5)
        rows = high[1] - high[0]
        row = min(_ROW, max(_LEAST_ROW, _TALL / rows))
        return _Scale(wide, high, (max(520, int(_COLUMN * (wide[1] - wide[0]))), int(row * rows)))

    @property
    def radius(self) -> _Place:
        """Of a node."""
        return _Place(
            *(_RADIUS * (ends[1] - ends[0]) / size for ends, size in zip((self.x, self.y), self.size, strict=True))
        )


def is_edges(result: Result) -> bool:
    """Whether a result scores edges."""
    return "edge" in result.data.dims and {"src", "dest"} <= set(result.data.coords) and "value" in result.data


def is_circuit_curve(result: Result) -> bool:
    """Whether a result evaluates circuits of growing size."""
    return {"faithfulness", "random_faithfulness"} <= set(result.data.data_vars)


def circuit_figure(result: Result, n: int = _MOST, *, roles: Result | None = None) -> go.Figure:
    """The edges with the largest scores, layers upward: blue supports the behaviour, red is against it.

    Args:
        result: of a method that scores edges, or of `EvaluateCircuit`.
        n: edges to draw.
        roles: of `HeadRoles`, whose names stand beside the heads.

    Raises:
        ConfigError: a result without edges.
    """
    name = next((one for one in ("value", "score") if one in result.data and "edge" in result.data[one].dims), None)
    if name is None:
        raise ConfigError(
            "A figure of a circuit was asked",
            got=f"a result of {result.info.method.get('name')}, without scores of edges",
            allowed="results of edge_attribution, edge_patching, evaluate_circuit",
        )
    values = result.data[name].values
    order = [at for at in np.argsort(-np.abs(np.nan_to_num(values)))[:n] if abs(values[at]) > 0]
    ends = [(str(result.data["src"].values[at]), str(result.data["dest"].values[at])) for at in order]
    places = _places({node for edge in ends for node in edge})
    scale = _Scale.of(list(places.values()))
    largest = max((abs(float(values[at])) for at in order), default=1.0)
    figure = go.Figure()
    unit = str(result.data[name].attrs.get("units", ""))
    for at, (src, dest) in reversed(list(zip(order, ends, strict=True))):
        share, said = float(values[at]) / largest, number(float(values[at]), unit)
        _edge(figure, (src, dest), (places[src], places[dest]), scale=scale, share=share, said=said)
    _nodes(figure, places, {} if roles is None else _roles(roles))
    figure.update_xaxes(visible=False, range=scale.x)
    figure.update_yaxes(visible=False, range=scale.y)
    method = words(str(result.info.method.get("name")))
    lines = [
        f"{result.info.model.get('name')} · {result.info.task.get('name')} · the {len(order)} largest of "
        f"{len(values):,} edges · the widest: {number(largest, unit)}",
        "blue supports the behaviour, red is against it; edges end left at a query, in the middle at a key, right at a "
        "value",
    ]
    dress(figure, f"Circuit by {method}", lines, size=scale.size)
    return figure.update_layout(showlegend=False, hovermode="closest")


def _places(names: set[str]) -> dict[str, _Place]:
    """Node -> where it is drawn; heads side by side, each block's MLP above them, the logits on top."""
    nodes = sorted({_node(name) for name in names})
    read = {node: _NODE.fullmatch(node) for node in nodes}
    heads = {node: int(one["head"]) for node, one in read.items() if one and one["head"]}
    rows = sorted({_row(one) for one in read.values() if one})
    level = {row: 1.0 + index for index, row in enumerate(rows)}
    found: dict[str, _Place] = {}
    for row in rows:
        own = sorted((node for node in heads if (one := read[node]) and _row(one) == row), key=heads.__getitem__)
        for index, node in enumerate(own):
            found[node] = _Place(index - (len(own) - 1) / 2, level[row])
    for node, one in read.items():
        if one and one["mlp"]:
            found[node] = _Place(0.0, level[_row(one)])
    found["embed"], found["logits"] = _Place(0.0, 0.0), _Place(0.0, 1.0 + len(rows))
    for name in names - set(found):
        node = _node(name)
        if node in found:
            found[name] = found[node]
    return found


def _row(one: re.Match[str]) -> tuple[int, int]:
    return (int(one["mlp"]), 1) if one["mlp"] else (int(one["layer"]), 0)


def _node(name: str) -> str:
    """The node of an input; of a group of heads, the first of them stands for it."""
    one = _NODE.fullmatch(name)
    if one is None or one["mlp"]:
        return name
    return f"a{one['layer']}.h{one['head']}" if one["head"] else f"a{one['layer']}.h{one['group']}"


def _edge(
    figure: go.Figure,
    ends: tuple[str, str],
    places: tuple[_Place, _Place],
    *,
    scale: _Scale,
    share: float,
    said: str,
) -> None:
    one = _NODE.fullmatch(ends[1])
    part = (one["part"] or "") if one else ""
    (start, end), radius = places, scale.radius
    color = TOWARDS if share >= 0 else AGAINST
    shift = _SHIFT.get(part, 0.0)
    to = _Place(end.x + shift * radius.x, end.y - (1 - shift**2) ** 0.5 * radius.y)
    begin = _Place(start.x, start.y + radius.y)
    bend = 0.0 if end.y - start.y <= 1 else 0.22 * (1 if to.x >= begin.x else -1)
    steps = np.linspace(0, 1, 20)
    x = begin.x + (to.x - begin.x) * steps + bend * np.sin(np.pi * steps)
    y = begin.y + (to.y - begin.y) * steps
    into = f"{_node(ends[1])} ({_PARTS[part]})" if part else ends[1]
    figure.add_scatter(
        x=x.tolist(),
        y=y.tolist(),
        mode="lines",
        line={"color": color, "width": 0.8 + _WIDEST * abs(share)},
        opacity=0.35 + 0.6 * min(1.0, abs(share) * 2),
        hoverinfo="text",
        text=safe(f"{ends[0]} to {into}: {said}"),
    )


def _nodes(figure: go.Figure, places: dict[str, _Place], roles: dict[str, str]) -> None:
    shown = {
        name: place for name, place in places.items() if _node(name) == name and not name.endswith(("q", "k", "v"))
    }
    colors = {role: LINES[at % len(LINES)] for at, role in enumerate(sorted(set(roles.values())))}
    figure.add_scatter(
        x=[place.x for place in shown.values()],
        y=[place.y for place in shown.values()],
        mode="markers+text",
        marker={
            "size": 2 * _RADIUS,
            "color": [colors.get(roles.get(name, ""), "white") for name in shown],
            "line": {"color": INK, "width": 1.2},
        },
        text=[_label(name) for name in shown],
        textfont={"size": 10, "color": ["white" if roles.get(name) else INK for name in shown]},
        hoverinfo="text",
        hovertext=[safe(f"{name}: {words(roles[name])}" if name in roles else name) for name in shown],
    )
    for name, role in roles.items():
        if name in shown:
            figure.add_annotation(
                x=shown[name].x,
                y=shown[name].y,
                text=safe(words(role), 24),
                showarrow=False,
                yshift=-26,
                font={"size": 9},
            )


def _label(name: str) -> str:
    one = _NODE.fullmatch(name)
    return f"{one['layer']}.{one['head']}" if one and one["head"] else name


def _roles(result: Result) -> dict[str, str]:
    found = result.data["role"].values
    return {
        f"a{layer}.h{head}": str(found[layer, head]) for layer, head in np.ndindex(found.shape) if found[layer, head]
    }


def circuit_curve(result: Result) -> go.Figure:
    """Faithfulness of circuits of growing size with its interval, beside that of random circuits."""
    data = result.data
    x, figure = data["fraction"].values, go.Figure()
    drawn = data["random_faithfulness"].values
    if drawn.shape[1]:
        _area(figure, x, (drawn.min(1), drawn.max(1)), color=QUIET)
        figure.add_scatter(
            x=x, y=drawn.mean(1), name="random circuits", mode="lines", line={"color": QUIET, "dash": "dot"},
            hovertemplate="random, %{x:.1%}: %{y:.3f}<extra></extra>",
        )  # fmt: skip
    _area(figure, x, (data["faithfulness_low"].values, data["faithfulness_high"].values), color=LINES[0])
    figure.add_scatter(
        x=x,
        y=data["faithfulness"].values,
        name=words(_found_by(result)),
        mode="lines+markers",
        line={"color": LINES[0], "width": 2.5},
        customdata=data["n_edges"].values,
        hovertemplate="%{x:.1%} of the edges, %{customdata} after pruning: %{y:.3f}<extra></extra>",
    )
    for level in (0, 1):
        figure.add_hline(y=level, line={"color": QUIET, "width": 1, "dash": "dash"})
    figure.update_xaxes(type="log", title_text="share of the edges", tickformat=".1%", tickvals=x)
    figure.update_yaxes(title_text="faithfulness (1: the whole model)")
    areas = [f"CPR {number(float(data['cpr']))}"]
    areas += [f"random {number(float(data['cpr_random'].mean()))}"] if drawn.shape[1] else []
    areas += [f"CMD {number(float(data['cmd']))}"]
    areas += [f"AUROC {number(float(data['auroc']))}"] if "auroc" in data else []
    lines = [
        " · ".join([str(result.info.model.get("name")), str(result.info.task.get("name")), *areas]),
        "band: 95 % bootstrap over prompts; grey: the range of random circuits of the same size; cut edges bring: "
        f"{result.info.method.get('reference')}",
    ]
    return dress(figure, "How much of the behaviour circuits bring alone", lines, size=(620, 320), room=(30, 0))


def _area(figure: go.Figure, x: np.ndarray, ends: tuple[np.ndarray, np.ndarray], *, color: str) -> None:
    figure.add_scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([ends[1], ends[0][::-1]]),
        fill="toself",
        fillcolor=faint(color),
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
    )


def _found_by(result: Result) -> str:
    of = str(result.info.method.get("of"))
    return of.split("(")[0]
