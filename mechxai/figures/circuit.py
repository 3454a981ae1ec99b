"""A circuit as a graph of heads and MLPs, layers upward."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from mechxai.core.errors import ConfigError
from mechxai.core.result import Result
from mechxai.figures.colors import AGAINST, LINES, TOWARDS
from mechxai.figures.text import number, safe, words
from mechxai.figures.theme import INK, dress

_NODE = re.compile(r"(?:a(?P<layer>\d+)\.(?:h(?P<head>\d+)|g(?P<group>\d+))|m(?P<mlp>\d+))(?:\.(?P<part>[qkv]))?")
_MAX_EDGES = 50  # more cannot be told apart
_WIDEST = 7.0  # pixels
_SHIFT = {"q": -0.6, "k": 0.0, "v": 0.6}  # ends of edges into queries, keys and values, in node radii from the centre
_RADIUS, _ROW, _COLUMN = 17, 84, 92  # pixels
_MIN_ROW, _MAX_HEIGHT = 48, 1200  # pixels: rows move closer in graphs that would be taller
_PARTS = {"q": "query", "k": "key", "v": "value"}


@dataclass(frozen=True)
class _Point:
    x: float
    y: float


@dataclass(frozen=True)
class _Scale:
    """Axis ranges and size of the graph.

    Attributes:
        x: range of the x axis.
        y: range of the y axis.
        size: width and height in pixels.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    size: tuple[int, int]

    @staticmethod
    def of(points: Sequence[_Point]) -> "_Scale":
        """The ranges that hold all nodes with a margin."""
        x, y = ([getattr(point, axis) for point in points] for axis in ("x", "y"))
        x_range, y_range = (min(x) - 0.7, max(x) + 0.7), (min(y) - 0.5, max(y) + 0.5)
        rows = y_range[1] - y_range[0]
        row = min(_ROW, max(_MIN_ROW, _MAX_HEIGHT / rows))
        return _Scale(x_range, y_range, (max(520, int(_COLUMN * (x_range[1] - x_range[0]))), int(row * rows)))

    @property
    def radius(self) -> _Point:
        """Radius of a node in axis units."""
        return _Point(
            *(_RADIUS * (ends[1] - ends[0]) / size for ends, size in zip((self.x, self.y), self.size, strict=True))
        )


def circuit_figure(result: Result, n: int = _MAX_EDGES, *, roles: Result | None = None) -> go.Figure:
    """The edges with the largest scores, layers upward: blue supports the behaviour, red opposes it.

    Args:
        result: of a method that scores edges, or of `EvaluateCircuit`.
        n: number of edges to draw, largest score first.
        roles: a result of `HeadRoles`, whose roles are written beside the heads.

    Raises:
        ConfigError: the result has no edge scores.
    """
    name = next((name for name in ("value", "score") if name in result.data and "edge" in result.data[name].dims), None)
    if name is None:
        raise ConfigError(
            f"A result of {result.info.method.get('name')} has no edge scores, which a circuit figure needs",
            allowed="results of edge_attribution, edge_patching, evaluate_circuit",
        )
    values = result.data[name].values
    order = [at for at in np.argsort(-np.abs(np.nan_to_num(values)))[:n] if abs(values[at]) > 0]
    ends = [(str(result.data["src"].values[at]), str(result.data["dest"].values[at])) for at in order]
    points = _layout({node for edge in ends for node in edge})
    scale = _Scale.of(list(points.values()))
    largest = max((abs(float(values[at])) for at in order), default=1.0)
    figure = go.Figure()
    unit = str(result.data[name].attrs.get("units", ""))
    for at, (src, dest) in reversed(list(zip(order, ends, strict=True))):
        share, score = float(values[at]) / largest, number(float(values[at]), unit)
        _draw_edge(figure, (src, dest), (points[src], points[dest]), scale=scale, share=share, score=score)
    _draw_nodes(figure, points, {} if roles is None else _roles(roles))
    figure.update_xaxes(visible=False, range=scale.x)
    figure.update_yaxes(visible=False, range=scale.y)
    method = words(str(result.info.method.get("name")))
    lines = [
        f"{result.info.model.get('name')} · {result.info.task.get('name')} · the {len(order)} largest of "
        f"{len(values):,} edges · largest score: {number(largest, unit)}",
        "blue supports the behaviour, red opposes it; edges into a head end at its left (query), middle (key) or right "
        "(value)",
    ]
    dress(figure, f"Circuit found by {method}", lines, size=scale.size)
    return figure.update_layout(showlegend=False, hovermode="closest")


def _layout(names: set[str]) -> dict[str, _Point]:
    """Node -> position: the embedding below, heads of a layer side by side, its MLP above them, the logits on top."""
    nodes = sorted({_node(name) for name in names})
    matches = {node: _NODE.fullmatch(node) for node in nodes}
    heads = {node: int(match["head"]) for node, match in matches.items() if match and match["head"]}
    rows = sorted({_row(match) for match in matches.values() if match})
    level = {row: 1.0 + index for index, row in enumerate(rows)}
    points: dict[str, _Point] = {}
    for row in rows:
        in_row = [node for node in heads if (match := matches[node]) and _row(match) == row]
        for index, node in enumerate(sorted(in_row, key=heads.__getitem__)):
            points[node] = _Point(index - (len(in_row) - 1) / 2, level[row])
    for node, match in matches.items():
        if match and match["mlp"]:
            points[node] = _Point(0.0, level[_row(match)])
    points["embed"], points["logits"] = _Point(0.0, 0.0), _Point(0.0, 1.0 + len(rows))
    for name in names - set(points):
        node = _node(name)
        if node in points:
            points[name] = points[node]
    return points


def _row(match: re.Match[str]) -> tuple[int, int]:
    return (int(match["mlp"]), 1) if match["mlp"] else (int(match["layer"]), 0)


def _node(name: str) -> str:
    """The node of an input; a group of heads is drawn at its first head."""
    match = _NODE.fullmatch(name)
    if match is None or match["mlp"]:
        return name
    return f"a{match['layer']}.h{match['head']}" if match["head"] else f"a{match['layer']}.h{match['group']}"


def _draw_edge(
    figure: go.Figure,
    names: tuple[str, str],
    ends: tuple[_Point, _Point],
    *,
    scale: _Scale,
    share: float,
    score: str,
) -> None:
    match = _NODE.fullmatch(names[1])
    part = (match["part"] or "") if match else ""
    (source, target), radius = ends, scale.radius
    shift = _SHIFT.get(part, 0.0)
    stop = _Point(target.x + shift * radius.x, target.y - (1 - shift**2) ** 0.5 * radius.y)
    start = _Point(source.x, source.y + radius.y)
    bend = 0.0 if target.y - source.y <= 1 else 0.22 * (1 if stop.x >= start.x else -1)
    steps = np.linspace(0, 1, 20)
    x = start.x + (stop.x - start.x) * steps + bend * np.sin(np.pi * steps)
    y = start.y + (stop.y - start.y) * steps
    into = f"{_node(names[1])} ({_PARTS[part]})" if part else names[1]
    figure.add_scatter(
        x=x.tolist(),
        y=y.tolist(),
        mode="lines",
        line={"color": TOWARDS if share >= 0 else AGAINST, "width": 0.8 + _WIDEST * abs(share)},
        opacity=0.35 + 0.6 * min(1.0, abs(share) * 2),
        hoverinfo="text",
        text=safe(f"{names[0]} to {into}: {score}"),
    )


def _draw_nodes(figure: go.Figure, points: dict[str, _Point], roles: dict[str, str]) -> None:
    nodes = {
        name: point for name, point in points.items() if _node(name) == name and not name.endswith(("q", "k", "v"))
    }
    colors = {role: LINES[at % len(LINES)] for at, role in enumerate(sorted(set(roles.values())))}
    figure.add_scatter(
        x=[point.x for point in nodes.values()],
        y=[point.y for point in nodes.values()],
        mode="markers+text",
        marker={
            "size": 2 * _RADIUS,
            "color": [colors.get(roles.get(name, ""), "white") for name in nodes],
            "line": {"color": INK, "width": 1.2},
        },
        text=[_label(name) for name in nodes],
        textfont={"size": 10, "color": ["white" if roles.get(name) else INK for name in nodes]},
        hoverinfo="text",
        hovertext=[safe(f"{name}: {words(roles[name])}" if name in roles else name) for name in nodes],
    )
    for name, role in roles.items():
        if name in nodes:
            figure.add_annotation(
                x=nodes[name].x,
                y=nodes[name].y,
                text=safe(words(role), 24),
                showarrow=False,
                yshift=-26,
                font={"size": 9},
            )


def _label(name: str) -> str:
    match = _NODE.fullmatch(name)
    return f"{match['layer']}.{match['head']}" if match and match["head"] else name


def _roles(result: Result) -> dict[str, str]:
    roles = result.data["role"].values
    return {
        f"a{layer}.h{head}": str(roles[layer, head]) for layer, head in np.ndindex(roles.shape) if roles[layer, head]
    }
