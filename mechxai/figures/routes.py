"""Information flow routes as a graph: tokens to the right, layers upward, edges as wide as their importance."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from mechxai.core.errors import ConfigError
from mechxai.core.result import Result
from mechxai.figures.axes import Axis, horizontal, label_height, pixels, vertical
from mechxai.figures.colors import LINES, SEQUENTIAL, TOWARDS
from mechxai.figures.text import number, safe
from mechxai.figures.theme import INK, dress
from mechxai.figures.tokens import prompt_number

_MAX_EDGES = 200  # between positions; more cannot be told apart
_ALL_TOKENS = 40  # a longer prompt shows only the tokens on a route
_WIDEST, _WIDTHS, _SHADES = 7.0, 8, 6  # pixels, distinct widths, distinct opacities
_HALF = 12  # points on half an edge
_BULGE = 0.3  # columns by which an edge within one position bends
_TOP_HEADS = 3
Trace = dict[str, Any]  # plotly's JSON form
RESIDUAL = "#9aa5b1"
_COLORS = {"attention": TOWARDS, "mlp": LINES[2], "residual": RESIDUAL}
_LABELS = {"attention": "attention", "mlp": "MLP", "residual": "residual stream"}


@dataclass(frozen=True)
class _Edge:
    """An edge of a route.

    Attributes:
        kind: ``attention``, ``mlp`` or ``residual``.
        layer: layer number.
        src: source position.
        dest: destination position.
        y: heights of both ends.
        importance: importance of the edge, 0 to 1.
        flow: importance times the flow at the upper end.
    """

    kind: str
    layer: int
    src: int
    dest: int
    y: tuple[float, float]
    importance: float
    flow: float


def routes_figure(result: Result, prompt: int = 0, *, n: int = _MAX_EDGES) -> go.Figure:
    """The routes of one prompt, followed down from the start position: tokens to the right, layers upward.

    Attention edges are blue, MLP edges green, residual stream edges grey; width is importance, opacity is flow.

    Args:
        result: of `InformationFlowRoutes`.
        prompt: number of the prompt.
        n: number of attention edges to draw, largest flow first.

    Raises:
        ConfigError: the result has no routes, or the prompt does not exist.
    """
    drawing = _drawing(result, prompt, n)
    data, info, start = drawing.data, result.info, int(drawing.data["start"])
    figure = go.Figure(drawing.traces())
    n_layers = data.sizes["layer"]
    size = (
        pixels(len(drawing.place), per_cell=44, least=420, most=1500),
        pixels(n_layers, per_cell=66, least=220, most=1100),
    )
    tokens = Axis("pos", tuple(drawing.columns()), texts=True)
    layers = Axis("layer", (*map(str, range(n_layers)), "end"), texts=False)
    figure.update_layout(
        xaxis={**horizontal(tokens, size[0]), "title": {"text": ""}},
        yaxis={**vertical(layers, size[1]), "title": {"text": "residual stream before layer"}},
        showlegend=False,
        hovermode="closest",
    )
    prompt_text = f"prompt {prompt} of {result.data.sizes['prompt']}" if result.data.sizes["prompt"] > 1 else ""
    parts = (str(info.model.get("name", "")), str(info.task.get("name") or ""), prompt_text)
    lines = [
        " · ".join(part for part in parts if part),
        "blue: attention (to the same position: right of the residual stream), green: MLPs, grey: residual stream",
        f"width: importance (above {info.method.get('threshold')}); opacity: flow",
        f"the {n} attention edges with the largest flow, of {drawing.n_attention:,}" if drawing.n_attention > n else "",
    ]
    heading = f'Information flow routes into position {start}, "{drawing.token(start)}"'
    return dress(figure, heading, lines, size=size, room=(0, label_height(tokens)))


def routes_traces(result: Result, prompt: int = 0, *, n: int = _MAX_EDGES) -> tuple[list[Trace], list[str]]:
    """The traces of `routes_figure` as plain mappings (the last holds the nodes), and the labels of its columns.

    Raises:
        ConfigError: the result has no routes, or the prompt does not exist.
    """
    drawing = _drawing(result, prompt, n)
    return drawing.traces(), drawing.columns()


def _drawing(result: Result, prompt: int, n: int) -> "_Drawing":
    if result.info.kind != "routes":
        raise ConfigError(
            f"A figure of routes cannot draw a result of {result.info.method.get('name')}",
            allowed="results of information_flow_routes",
        )
    data = result.data.isel(prompt=prompt_number(result, prompt))
    threshold = float(str(result.info.method.get("threshold", 0.0)))
    attention, n_attention = _attention_edges(data, threshold, n)
    place = {pos: at for at, pos in enumerate(_positions(data, attention))}
    others = [edge for edge in _residual_and_mlp_edges(data, threshold) if edge.src in place]
    return _Drawing(data, [*others, *attention], place, n_attention)


def _attention_edges(data: xr.Dataset, threshold: float, n: int) -> tuple[list[_Edge], int]:
    """The ``n`` attention edges with the largest flow, and the number of all above the threshold."""
    importance = data["attention"].values
    above = np.argwhere(importance > threshold)
    flow = importance[tuple(above.T)] * data["node_mid"].values[tuple(above[:, :2].T)]
    edges = []
    for at in np.argsort(-flow, kind="stable")[:n].tolist():
        layer, dest, src = above[at].tolist()
        y = (layer + 0.0, layer + _middle(data))
        edge_importance = float(importance[layer, dest, src])
        edges.append(_Edge("attention", layer, src, dest, y=y, importance=edge_importance, flow=float(flow[at])))
    return edges, len(above)


def _residual_and_mlp_edges(data: xr.Dataset, threshold: float) -> Iterator[_Edge]:
    """Edges of the residual stream and the MLPs, which stay at one position.

    Yields:
        Edges by layer, lowest first.
    """
    node, node_mid = data["node"].values, data["node_mid"].values
    serial = "residual_mlp" in data
    lower = {"residual": "residual_attention"} | ({"mlp": "mlp"} if "mlp" in data and not serial else {})
    upper = {"residual": "residual_mlp", "mlp": "mlp"} if serial else {}
    for layer in range(data.sizes["layer"]):
        low, mid, top = layer + 0.0, layer + _middle(data), layer + 1.0
        for names, flow, y in ((lower, node_mid[layer], (low, mid)), (upper, node[layer + 1], (mid, top))):
            for kind, name in names.items():
                importance = data[name].values[layer]
                for pos in np.nonzero((importance > threshold) & (flow > 0))[0].tolist():
                    value = float(importance[pos])
                    yield _Edge(kind, layer, pos, pos, y=y, importance=value, flow=value * float(flow[pos]))


def _middle(data: xr.Dataset) -> float:
    """Height of the node after attention within its layer."""
    return 0.5 if "residual_mlp" in data else 1.0


def _positions(data: xr.Dataset, attention: list[_Edge]) -> list[int]:
    """The positions to show: all up to the start; in a long prompt, only those at an attention edge."""
    start = int(data["start"])
    if start < _ALL_TOKENS:
        return list(range(start + 1))
    return sorted({start, *(edge.src for edge in attention), *(edge.dest for edge in attention)})


def _by_appearance(edges: list[_Edge]) -> list[list[_Edge]]:
    """Edges of one kind with about the same width and opacity, which are drawn together; the faintest first."""
    groups: dict[tuple[int, str, int], list[_Edge]] = {}
    for edge in edges:
        shade, width = (round(value**0.5 * most) for value, most in ((edge.flow, _SHADES), (edge.importance, _WIDTHS)))
        groups.setdefault((shade, edge.kind, width), []).append(edge)
    return [groups[key] for key in sorted(groups)]


@dataclass(frozen=True)
class _Drawing:
    """The graph of one prompt.

    Attributes:
        data: the prompt's data.
        edges: the edges to draw.
        place: position -> column.
        n_attention: number of attention edges above the threshold, drawn or not.
    """

    data: xr.Dataset
    edges: list[_Edge]
    place: dict[int, int]
    n_attention: int

    def traces(self) -> list[Trace]:
        """Edges, their hover points, and the nodes on top."""
        middles = [self._middles([edge for edge in self.edges if edge.kind == kind]) for kind in _COLORS]
        return [*map(self._lines, _by_appearance(self.edges)), *middles, self._nodes()]

    def columns(self) -> list[str]:
        """Labels of the columns."""
        return [self._position(pos, 16) for pos in self.place]

    def token(self, pos: int) -> str:
        """The token at a position, stripped unless it is only whitespace."""
        text = str(self.data["token"].values[pos])
        return text.strip() or text

    def _position(self, pos: int, limit: int = 30) -> str:
        """A position as number and token."""
        return safe(f"{pos}: {self.token(pos)}", limit)

    def _curve(self, edge: _Edge) -> tuple[np.ndarray, np.ndarray]:
        """Points of an edge, vertical at both ends; within one position, attention bends right and MLPs left."""
        steps = np.linspace(0, 1, 2 * _HALF + 1)
        start, end = self.place[edge.src], self.place[edge.dest]
        side = {"attention": _BULGE, "mlp": -_BULGE, "residual": 0.0}[edge.kind] if start == end else 0.0
        x = start + (end - start) * steps**2 * (3 - 2 * steps) + side * np.sin(np.pi * steps)
        return x, edge.y[0] + (edge.y[1] - edge.y[0]) * steps

    def _lines(self, edges: list[_Edge]) -> Trace:
        """Edges of the same appearance as one line with gaps."""
        x: list[float | None] = []
        y: list[float | None] = []
        for curve in map(self._curve, edges):
            x += [*curve[0].tolist(), None]
            y += [*curve[1].tolist(), None]
        return {
            "type": "scatter",
            "x": x,
            "y": y,
            "mode": "lines",
            "line": {"color": _COLORS[edges[0].kind], "width": 0.8 + _WIDEST * max(edge.importance for edge in edges)},
            "opacity": 0.15 + 0.8 * min(1.0, max(edge.flow for edge in edges) ** 0.5),
            "hoverinfo": "skip",
        }

    def _middles(self, edges: list[_Edge]) -> Trace:
        """Hover points at the middle of each edge; MLPs are marked by a square."""
        curves = [self._curve(edge) for edge in edges]
        opacity = [0.3 + 0.7 * edge.flow**0.5 if edge.kind == "mlp" else 0.0 for edge in edges]
        return {
            "type": "scatter",
            "x": [float(x[_HALF]) for x, _ in curves],
            "y": [float(y[_HALF]) for _, y in curves],
            "mode": "markers",
            "marker": {"size": 8, "symbol": "square", "color": _COLORS["mlp"], "opacity": opacity},
            "hoverinfo": "text",
            "hovertext": [self._edge_text(edge) for edge in edges],
        }

    def _edge_text(self, edge: _Edge) -> str:
        start = f"{self._position(edge.src)} to " if edge.src != edge.dest else ""
        numbers = f"importance {number(edge.importance)}, flow {number(edge.flow)}"
        return f"<b>{_LABELS[edge.kind]}, layer {edge.layer}</b><br>{start}{self._position(edge.dest)}<br>{numbers}"

    def _nodes(self) -> Trace:
        """The nodes on a route, dark by their flow, with the most important heads in the hover text."""
        flow = self.data["node"].values
        reached = [(top, pos) for top, pos in np.argwhere(np.nan_to_num(flow) > 0).tolist() if pos in self.place]
        return {
            "type": "scatter",
            "x": [self.place[pos] for _, pos in reached],
            "y": [stream for stream, _ in reached],
            "mode": "markers",
            "marker": {
                "size": 11,
                "color": [float(flow[stream, pos]) ** 0.5 for stream, pos in reached],
                "cmin": 0,
                "cmax": 1,
                "colorscale": SEQUENTIAL,
                "showscale": False,
                "line": {"color": INK, "width": 1},
            },
            "customdata": reached,
            "hoverinfo": "text",
            "hovertext": [self._node_text(stream, pos) for stream, pos in reached],
        }

    def _node_text(self, stream: int, pos: int) -> str:
        n_layers = self.data.sizes["layer"]
        where = f"before layer {stream}" if stream < n_layers else "after the last layer"
        text = f"<b>{where}</b><br>{self._position(pos)}<br>flow {number(float(self.data['node'].values[stream, pos]))}"
        heads = self.data["head_importance"].values[stream - 1, pos] if stream else np.full(1, np.nan)
        if np.isnan(heads).any():
            return text
        largest = np.argsort(-heads)[:_TOP_HEADS].tolist()
        listed = ", ".join(f"{stream - 1}.{head} {number(float(heads[head]))}" for head in largest)
        return f"{text}<br>most important heads: {listed}"
