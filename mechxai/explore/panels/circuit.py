"""The edges between heads, MLPs and logits that carry the answer, to first order."""

import re
from collections.abc import Hashable

from mechxai.core.result import Result
from mechxai.explore.palette import NO_MARGIN, Palette, Picture
from mechxai.explore.panel_context import PanelContext, goes
from mechxai.figures.circuit import circuit_figure
from mechxai.figures.colors import TOWARDS
from mechxai.methods.circuits.edge_attribution import EdgeAttribution

_HEAD = re.compile(r"a(\d+)\.h(\d+)")
_MLP = re.compile(r"m(\d+)")
_EDGES = 40
_HIGHEST = 1600


def key(scene: PanelContext) -> Hashable:
    """What decides the numbers."""
    view = scene.view
    return ("circuit", view.model, view.prompt, view.corrupted, view.answer, view.wrong)


def method(scene: PanelContext) -> EdgeAttribution:
    """The scores that are asked."""
    del scene
    return EdgeAttribution(kind="eap_ig_inputs")


def draw(scene: PanelContext, result: Result) -> Picture:
    """The largest edges as a graph, layers upward; a click on a head chooses it."""
    palette, drawn = scene.palette, scene.reading.once(("edges", key(scene)), lambda: _plain(result))
    layout = drawn["layout"]
    hidden = [{"visible": False, "range": layout[name]["range"]} for name in ("xaxis", "yaxis")]
    margin = layout["margin"]
    width, height = layout["width"] - margin["l"] - margin["r"], layout["height"] - margin["t"] - margin["b"]
    share = min(1.0, _HIGHEST / height)  # edges meet nodes only where both sides shrink alike
    size = [round(share * one) + 2 * NO_MARGIN for one in (width, height)]
    figure = palette.figure({}, size[1], x=hidden[0], y=hidden[1], meta={"width": size[0]})
    chosen = f"a{scene.block}.h{scene.view.head}"
    return {**figure, "data": [_colored(palette, trace, chosen, share) for trace in drawn["data"]]}


def _plain(result: Result) -> Picture:
    return circuit_figure(result, _EDGES).to_plotly_json()


def _colored(palette: Palette, trace: Picture, chosen: str, share: float) -> Picture:  # noqa: PLR0917 - a trace and how it is drawn
    """An edge, or all nodes, in the page's colours."""
    if "markers" not in trace["mode"]:
        color = palette.towards if trace["line"]["color"] == TOWARDS else palette.against
        return {**trace, "line": {**trace["line"], "color": color}}
    names = [str(one).split(":")[0] for one in trace["hovertext"]]
    rim = palette.rims([name == chosen for name in names])
    return {
        **trace,
        "customdata": [_goes(name) for name in names],
        "marker": {"size": max(14, round(34 * share)), "color": palette.sequential[0][1], "line": rim},
        "textfont": {"size": 10, "color": palette.ink},
    }


def _goes(name: str) -> str:
    head, mlp = _HEAD.fullmatch(name), _MLP.fullmatch(name)
    if head:
        return goes(layer=head[1], head=head[2])
    return goes(layer=mlp[1]) if mlp else ""
