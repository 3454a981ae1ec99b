"""The edges between heads, MLPs and logits that carry the answer, to first order (EAP-IG)."""

import re
from collections.abc import Hashable

from mechxai.core.result import Result
from mechxai.explore.palette import NO_MARGIN, Palette, Picture
from mechxai.explore.panel_context import PanelContext, click_target
from mechxai.figures.circuit import circuit_figure
from mechxai.figures.colors import TOWARDS
from mechxai.methods.circuits.edge_attribution import EdgeAttribution

_HEAD = re.compile(r"a(\d+)\.h(\d+)")
_MLP = re.compile(r"m(\d+)")
_N_EDGES = 40
_MAX_HEIGHT = 1600


def key(context: PanelContext) -> Hashable:
    """What determines the scores."""
    view = context.view
    return ("circuit", view.model, view.prompt, view.corrupted, view.answer, view.wrong)


def method(context: PanelContext) -> EdgeAttribution:
    """Edge attribution with integrated gradients over inputs."""
    del context
    return EdgeAttribution(kind="eap_ig_inputs")


def draw(context: PanelContext, result: Result) -> Picture:
    """The largest edges as a graph, layers upward; a click on a head chooses it."""
    palette = context.palette
    graph = context.analysis.cached(("edges", key(context)), lambda: circuit_figure(result, _N_EDGES).to_plotly_json())
    layout = graph["layout"]
    hidden = [{"visible": False, "range": layout[name]["range"]} for name in ("xaxis", "yaxis")]
    margin = layout["margin"]
    width, height = layout["width"] - margin["l"] - margin["r"], layout["height"] - margin["t"] - margin["b"]
    share = min(1.0, _MAX_HEIGHT / height)  # both sides shrink alike, so that edges still meet nodes
    shown_width, shown_height = (round(share * side) + 2 * NO_MARGIN for side in (width, height))
    figure = palette.figure({}, shown_height, x=hidden[0], y=hidden[1], meta={"width": shown_width})
    chosen = f"a{context.block}.h{context.view.head}"
    return {**figure, "data": [_colored(palette, trace, chosen, share) for trace in graph["data"]]}


def _colored(palette: Palette, trace: Picture, chosen: str, share: float) -> Picture:  # noqa: PLR0917 - a trace and how it is drawn
    """A trace of an edge, or of all nodes, in the page's colours."""
    if "markers" not in trace["mode"]:
        color = palette.towards if trace["line"]["color"] == TOWARDS else palette.against
        return {**trace, "line": {**trace["line"], "color": color}}
    names = [str(text).split(":")[0] for text in trace["hovertext"]]
    rim = palette.rims([name == chosen for name in names])
    return {
        **trace,
        "customdata": [_node_target(name) for name in names],
        "marker": {"size": max(14, round(34 * share)), "color": palette.sequential[0][1], "line": rim},
        "textfont": {"size": 10, "color": palette.ink},
    }


def _node_target(name: str) -> str:
    """The click target of a node: its layer, and its head if it has one."""
    head, mlp = _HEAD.fullmatch(name), _MLP.fullmatch(name)
    if head:
        return click_target(layer=head[1], head=head[2])
    return click_target(layer=mlp[1]) if mlp else ""
