"""Information flow routes as a graph: tokens to the right, layers upward, edges as wide as they are important."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from mechxai.core.errors import ConfigError
from mechxai.core.result import Result
from mechxai.figures.axes import Axis, below, beside, foot, pixels
from mechxai.figures.colors import LINES, SEQUENTIAL, TOWARDS
from mechxai.figures.text import number, safe
from mechxai.figures.theme import INK, dress
from mechxai.figures.tokens import known_prompt

_MOST = 200  # edges from token to token that can still be told apart
_ALL_TOKENS = 40  # a longer prompt shows those that are on a route
_WIDEST, _WIDTHS, _SHADES = 7.0, 8, 6
_HALF = 12  # points of half an edge
_BULGE = 0.3  # of a column, of edges that begin and end at one position
_TOP_HEADS = 3
Trace = dict[str, Any]  # as plotly describes it
RESIDUAL = "#9aa5b1"
_COLORS = {"attention": TOWARDS, "mlp": LINES[2], "residual": RESIDUAL}
_SAID = {"attention": "attention", "mlp": "MLP", "residual": "residual stream"}


@dataclass(frozen=True)
class _Edge:
    """One edge that was followed.

    Attributes:
        kind: ``attention``, ``mlp`` or ``residual``.
        layer: block.
        src: position it comes from.
        dest: position it leads to.
        y: heights of both ends.
        importance: of the edge.
        flow: importance times the flow at its upper end.
    """

    kind: str
    layer: int
    src: int
    dest: int
    y: tuple[float, float]
    importance: float
    flow: float


def is_routes(result: Result) -> bool:
    """Whether a result holds information flow routes."""
    return {"node", "node_mid", "attention", "residual_attention"} <= set(result.data)


def routes_figure(result: Result, prompt: int = 0, *, n: int = _MOST) -> go.Figure:
    """The routes of one prompt: tokens to the right, layers upward, what was followed from its start down.

    Blue edges are attention, green ones the MLP, grey ones the residual stream: wide by importance, dark by flow.

    Args:
        result: of `InformationFlowRoutes`.
        prompt: its number.
        n: edges of attention to draw, those of the largest flow.

    Raises:
        ConfigError: a result without routes, or no such prompt.
    """
    drawing = _drawing(result, prompt, n)
    data, info, start = drawing.data, result.info, int(drawing.data["start"])
    figure = go.Figure(drawing.traces())
    n_layers = data.sizes["layer"]
    size = (
        pixels(len(drawing.place), per_cell=44, least=420, most=1500),
        pixels(n_layers, per_cell=66, least=220, most=1100),
    )
    words_along = Axis("pos", tuple(drawing.columns()), texts=True)
    layers = Axis("layer", (*map(str, range(n_layers)), "end"), texts=False)
    figure.update_layout(
        xaxis={**below(words_along, size[0]), "title": {"text": ""}},
        yaxis={**beside(layers, size[1]), "title": {"text": "residual stream before layer"}},
        showlegend=False,
        hovermode="closest",
    )
    several = f"prompt {prompt} of {result.data.sizes['prompt']}" if result.data.sizes["prompt"] > 1 else ""
    parts = (str(info.model.get("name", "")), str(info.task.get("name") or ""), several)
    lines = [
        " · ".join(part for part in parts if part),
        "blue: attention (from its own position, right of the residual stream), green: MLPs, grey: the residual stream",
        f"wide by importance, above {info.method.get('threshold')}; dark by the flow that passes",
        f"the {n} edges of attention with the largest flow, of {drawing.n_across:,}" if drawing.n_across > n else "",
    ]
    heading = f'Information flow routes into position {start}, "{drawing.token(start)}"'
    return dress(figure, heading, lines, size=size, room=(0, foot(words_along)))


def routes_traces(result: Result, prompt: int = 0, *, n: int = _MOST) -> tuple[list[Trace], list[str]]:
    """What `routes_figure` draws, as plain mappings, and what stands below its columns; the last trace is the nodes.

    Raises:
        ConfigError: as `routes_figure`.
    """
    drawing = _drawing(result, prompt, n)
    return drawing.traces(), drawing.columns()


def _drawing(result: Result, prompt: int, n: int) -> "_Drawing":
    if not is_routes(result):
        raise ConfigError(
            "A figure of routes was asked",
            got=f"a result of {result.info.method.get('name')}",
            allowed="results of information_flow_routes",
        )
    data = result.data.isel(prompt=known_prompt(result, prompt))
    threshold = float(str(result.info.method.get("threshold", 0.0)))
    across, n_across = _across(data, threshold, n)
    place = {pos: at for at, pos in enumerate(_columns(data, across))}
    within = [edge for edge in _within(data, threshold) if edge.src in place]
    return _Drawing(data, [*within, *across], place, n_across)


def _across(data: xr.Dataset, threshold: float, n: int) -> tuple[list[_Edge], int]:
    """Edges of attention that were followed, those of the largest flow; and how many there are."""
    shares = data["attention"].values
    followed = np.argwhere(shares > threshold)
    flow = shares[tuple(followed.T)] * data["node_mid"].values[tuple(followed[:, :2].T)]
    found = []
    for at in np.argsort(-flow, kind="stable")[:n].tolist():
        layer, dest, src = followed[at].tolist()
        share = float(shares[layer, dest, src])
        y = (layer + 0.0, layer + _middle(data))
        found.append(_Edge("attention", layer, src, dest, y=y, importance=share, flow=float(flow[at])))
    return found, len(followed)


def _within(data: xr.Dataset, threshold: float) -> Iterator[_Edge]:
    """Edges that were followed from one position to itself, those of attention left out.

    Yields:
        By layer, from below.
    """
    node, middle = data["node"].values, data["node_mid"].values
    serial = "residual_mlp" in data
    inside = {"residual": "residual_attention"} | ({"mlp": "mlp"} if "mlp" in data and not serial else {})
    above = {"residual": "residual_mlp", "mlp": "mlp"} if serial else {}
    for layer in range(data.sizes["layer"]):
        low, mid, top = layer + 0.0, layer + _middle(data), layer + 1.0
        for names, flow, y in ((inside, middle[layer], (low, mid)), (above, node[layer + 1], (mid, top))):
            for kind, name in names.items():
                shares = data[name].values[layer]
                for pos in np.nonzero((shares > threshold) & (flow > 0))[0].tolist():
                    share = float(shares[pos])
                    yield _Edge(kind, layer, pos, pos, y=y, importance=share, flow=share * float(flow[pos]))


def _middle(data: xr.Dataset) -> float:
    """Where in its layer the node after attention stands."""
    return 0.5 if "residual_mlp" in data else 1.0


def _columns(data: xr.Dataset, across: list[_Edge]) -> list[int]:
    """Positions that are shown: up to the start all of them, of a long prompt those at an edge of attention."""
    start = int(data["start"])
    if start < _ALL_TOKENS:
        return list(range(start + 1))
    return sorted({start, *(edge.src for edge in across), *(edge.dest for edge in across)})


def _alike(edges: list[_Edge]) -> list[list[_Edge]]:
    """Edges of one kind, about as wide and as dark, drawn together: the faintest first."""
    found: dict[tuple[int, str, int], list[_Edge]] = {}
    for edge in edges:
        shade, width = (round(value**0.5 * most) for value, most in ((edge.flow, _SHADES), (edge.importance, _WIDTHS)))
        found.setdefault((shade, edge.kind, width), []).append(edge)
    return [found[key] for key in sorted(found)]


@dataclass(frozen=True)
class _Drawing:
    """What is drawn of one prompt.

    Attributes:
        data: of the prompt.
        edges: drawn ones.
        place: position -> its column.
        n_across: edges of attention that were followed, drawn or not.
    """

    data: xr.Dataset
    edges: list[_Edge]
    place: dict[int, int]
    n_across: int

    def traces(self) -> list[Trace]:
        """Edges, what they say, and nodes above them."""
        middles = [self._middles([edge for edge in self.edges if edge.kind == kind]) for kind in _COLORS]
        return [*map(self._lines, _alike(self.edges)), *middles, self._nodes()]

    def columns(self) -> list[str]:
        """What stands below the columns."""
        return [self.named(pos, 16) for pos in self.place]

    def token(self, pos: int) -> str:
        """The token of a position, without the spaces around it unless it is nothing else."""
        text = str(self.data["token"].values[pos])
        return text.strip() or text

    def named(self, pos: int, limit: int = 30) -> str:
        """A position's number and token."""
        return safe(f"{pos}: {self.token(pos)}", limit)

    def _curve(self, edge: _Edge) -> tuple[np.ndarray, np.ndarray]:
        """Upright at both ends; to the right of the residual stream, or left of it (the MLP), within one position."""
        steps = np.linspace(0, 1, 2 * _HALF + 1)
        start, end = self.place[edge.src], self.place[edge.dest]
        side = {"attention": _BULGE, "mlp": -_BULGE, "residual": 0.0}[edge.kind] if start == end else 0.0
        x = start + (end - start) * steps**2 * (3 - 2 * steps) + side * np.sin(np.pi * steps)
        return x, edge.y[0] + (edge.y[1] - edge.y[0]) * steps

    def _lines(self, edges: list[_Edge]) -> Trace:
        """Edges that look alike, as one line with gaps."""
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
        """What each edge says, beside a pointer at its middle; there MLPs have a square."""
        curves = [self._curve(edge) for edge in edges]
        shown = [0.3 + 0.7 * edge.flow**0.5 if edge.kind == "mlp" else 0.0 for edge in edges]
        return {
            "type": "scatter",
            "x": [float(x[_HALF]) for x, _ in curves],
            "y": [float(y[_HALF]) for _, y in curves],
            "mode": "markers",
            "marker": {"size": 8, "symbol": "square", "color": _COLORS["mlp"], "opacity": shown},
            "hoverinfo": "text",
            "hovertext": [self._says(edge) for edge in edges],
        }

    def _says(self, edge: _Edge) -> str:
        start = f"{self.named(edge.src)} to " if edge.src != edge.dest else ""
        found = f"importance {number(edge.importance)}, flow {number(edge.flow)}"
        return f"<b>{_SAID[edge.kind]}, layer {edge.layer}</b><br>{start}{self.named(edge.dest)}<br>{found}"

    def _nodes(self) -> Trace:
        """Nodes that are reached, dark by their flow; beside the pointer the heads that bring most to them."""
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
            "hovertext": [self._of_node(stream, pos) for stream, pos in reached],
        }

    def _of_node(self, stream: int, pos: int) -> str:
        n_layers = self.data.sizes["layer"]
        where = f"before layer {stream}" if stream < n_layers else "after the last layer"
        text = f"<b>{where}</b><br>{self.named(pos)}<br>flow {number(float(self.data['node'].values[stream, pos]))}"
        heads = self.data["head_importance"].values[stream - 1, pos] if stream else np.full(1, np.nan)
        if np.isnan(heads).any():
            return text
        first = np.argsort(-heads)[:_TOP_HEADS].tolist()
        said = ", ".join(f"{stream - 1}.{head} {number(float(heads[head]))}" for head in first)
        return f"{text}<br>heads below: {said}"
