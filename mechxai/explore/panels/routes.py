"""Information flow routes: a graph over tokens and layers of what the chosen position is computed from."""

from collections.abc import Hashable

from mechxai.core.result import Result
from mechxai.explore.palette import Palette, Picture, ticks
from mechxai.explore.panel_context import PanelContext, click_target
from mechxai.figures.colors import TOWARDS
from mechxai.figures.routes import RESIDUAL, routes_traces
from mechxai.methods.circuits.information_flow_routes import InformationFlowRoutes

_N_EDGES = 120
_MIN_HEIGHT, _MAX_HEIGHT, _ROW_HEIGHT = 300, 620, 62
_QUICK = 5e7  # multiplications of a tracing that runs without a click on Run


def key(context: PanelContext) -> Hashable:
    """What determines the routes."""
    return ("routes", context.view.model, context.view.prompt, context.view.pos)


def method(context: PanelContext) -> InformationFlowRoutes:
    """Information flow routes to the chosen position."""
    return InformationFlowRoutes(pos=context.view.pos)


def quick(context: PanelContext) -> bool:
    """Whether tracing is so fast that it runs for every view."""
    a, n_pos = context.analysis.model.architecture, context.view.pos + 1
    return a.n_layers * a.n_heads * a.d_model * n_pos * n_pos <= _QUICK


def draw(context: PanelContext, result: Result) -> Picture:
    """Tokens to the right, layers upward; a click on a node chooses its position and layer."""
    palette = context.palette
    traces, columns = context.analysis.cached(("drawn", context.view.pos), lambda: routes_traces(result, n=_N_EDGES))
    n_layers = context.analysis.model.architecture.n_layers
    height = min(_MAX_HEIGHT, max(_MIN_HEIGHT, 90 + _ROW_HEIGHT * n_layers))
    layers = ticks([*map(str, range(n_layers)), "out"], "before layer")
    figure = palette.figure(
        {},
        height,
        x={**ticks(columns, turned=True), "range": [-0.6, len(columns) - 0.4]},
        y={**layers, "range": [-0.3, n_layers + 0.3]},
    )
    return {**figure, "data": [_colored(palette, trace, context) for trace in traces]}


def _colored(palette: Palette, trace: Picture, context: PanelContext) -> Picture:
    """A trace of edges, of their hover texts, or of all nodes, in the page's colours."""
    if trace["mode"] == "lines":
        default = trace["line"]["color"]
        color = {TOWARDS: palette.towards, RESIDUAL: palette.quiet}.get(default, default)
        return {**trace, "line": {**trace["line"], "color": color}}
    if "customdata" not in trace:
        return trace
    view = context.view
    chosen = [(int(stream), int(pos)) == (view.layer, view.pos) for stream, pos in trace["customdata"]]
    return {
        **trace,
        "customdata": [click_target(layer=int(stream), pos=int(pos)) for stream, pos in trace["customdata"]],
        "marker": {**trace["marker"], "colorscale": palette.sequential, "line": palette.rims(chosen)},
    }
