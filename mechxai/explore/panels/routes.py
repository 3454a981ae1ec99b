"""The routes by which the chosen position came to hold what it holds: one graph over tokens and layers."""

from collections.abc import Hashable

from mechxai.core.result import Result
from mechxai.explore.palette import Palette, Picture, ticks
from mechxai.explore.panel_context import PanelContext, goes
from mechxai.figures.colors import TOWARDS
from mechxai.figures.routes import RESIDUAL, routes_traces
from mechxai.methods.circuits.information_flow_routes import InformationFlowRoutes

_EDGES = 120
_LEAST, _HIGHEST, _ROW = 300, 620, 62
_QUICK = 5e7  # multiplications that tracing may take where nobody asked for it


def key(scene: PanelContext) -> Hashable:
    """What decides the numbers."""
    return ("routes", scene.view.model, scene.view.prompt, scene.view.pos)


def method(scene: PanelContext) -> InformationFlowRoutes:
    """The tracing that is asked."""
    return InformationFlowRoutes(pos=scene.view.pos)


def quick(scene: PanelContext) -> bool:
    """Whether tracing takes so little that it follows every step."""
    a, n = scene.reading.model.architecture, scene.view.pos + 1
    return a.n_layers * a.n_heads * a.d_model * n * n <= _QUICK


def draw(scene: PanelContext, result: Result) -> Picture:
    """Tokens to the right, layers upward; a click on a node chooses its position and layer."""
    palette = scene.palette
    traces, columns = scene.reading.once(("drawn", scene.view.pos), lambda: routes_traces(result, n=_EDGES))
    n_layers = scene.reading.model.architecture.n_layers
    height = min(_HIGHEST, max(_LEAST, 90 + _ROW * n_layers))
    layers = ticks([*map(str, range(n_layers)), "out"], "before layer")
    figure = palette.figure(
        {},
        height,
        x={**ticks(columns, turned=True), "range": [-0.6, len(columns) - 0.4]},
        y={**layers, "range": [-0.3, n_layers + 0.3]},
    )
    return {**figure, "data": [_colored(palette, trace, scene) for trace in traces]}


def _colored(palette: Palette, trace: Picture, scene: PanelContext) -> Picture:
    """Edges, what they say, or all nodes, in the page's colours."""
    if trace["mode"] == "lines":
        own = trace["line"]["color"]
        color = {TOWARDS: palette.towards, RESIDUAL: palette.quiet}.get(own, own)
        return {**trace, "line": {**trace["line"], "color": color}}
    if "customdata" not in trace:
        return trace
    view = scene.view
    chosen = [(int(stream), int(pos)) == (view.layer, view.pos) for stream, pos in trace["customdata"]]
    return {
        **trace,
        "customdata": [goes(layer=int(stream), pos=int(pos)) for stream, pos in trace["customdata"]],
        "marker": {**trace["marker"], "colorscale": palette.sequential, "line": palette.rims(chosen)},
    }
