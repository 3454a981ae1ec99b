"""A result as a plotly figure: the one door to this floor."""

from collections.abc import Callable, Mapping

import plotly.graph_objects as go

from mechxai.core.errors import ConfigError, nearest
from mechxai.core.result import Result
from mechxai.figures.attention_view import is_patterns, pattern_figure
from mechxai.figures.chains import (
    biased_figure,
    chain_curve,
    flow_figure,
    is_biased,
    is_chain_curve,
    is_flow,
    is_planted,
    is_vote,
    planted_figure,
    vote_figure,
)
from mechxai.figures.circuit import circuit_curve, circuit_figure, is_circuit_curve, is_edges
from mechxai.figures.factors import factor_figure, is_factors
from mechxai.figures.faithfulness import is_judged, judged_figure
from mechxai.figures.heatmap import default_scale, facets, heatmap, slider
from mechxai.figures.lens import is_lens, lens_grid
from mechxai.figures.line import bars, line
from mechxai.figures.panels import panel_names, panels
from mechxai.figures.probes import causal_lines, is_causal_check, is_probes, probe_bars
from mechxai.figures.routes import is_routes, routes_figure
from mechxai.figures.shown_variable import MAX_DIMS, Shown, default_variable, frame_dim, shown, too_many
from mechxai.figures.theme import dress, headline
from mechxai.figures.tokens import is_attribution, token_figure

_FEW_FRAMES = 4
# Results with a figure of their own, drawn unless a variable, a kind or a slice is asked.
_OWN: tuple[tuple[Callable[[Result], bool], Callable[[Result], go.Figure]], ...] = (
    (is_probes, probe_bars),
    (is_causal_check, causal_lines),
    (is_attribution, token_figure),
    (is_judged, judged_figure),
    (is_patterns, pattern_figure),
    (is_edges, circuit_figure),
    (is_routes, routes_figure),
    (is_circuit_curve, circuit_curve),
    (is_chain_curve, chain_curve),
    (is_planted, planted_figure),
    (is_flow, flow_figure),
    (is_vote, vote_figure),
    (is_biased, biased_figure),
)
# Results of which one prompt is drawn with its tokens, unless a kind or another slice is asked.
_OF_ONE_PROMPT: tuple[
    tuple[Callable[[Result, str], bool], Callable[[Result, str, Mapping[str, object]], go.Figure]], ...
] = (
    (is_lens, lens_grid),
    (is_factors, lambda result, _, select: factor_figure(result, select)),
)
# Dims whose coordinates stand in no order, so that a line between them would mean nothing.
_UNORDERED = ("head", "method", "component", "edge", "site")
_DIMS = {"heatmap": (2,), "line": (1, 2), "bar": (0, 1), "slider": (3,), "facets": (3,)}


def plot(
    result: Result,
    variable: str | None = None,
    kind: str = "auto",
    *,
    select: Mapping[str, object] | None = None,
    center: float | None = None,
    title: str | None = None,
) -> go.Figure:
    """The figure of one variable of a result.

    Two dims make a heatmap (layers upward, positions or heads to the right), one a line with its bootstrap band or, for
    coordinates without an order, bars with whiskers; three a heatmap behind a slider, or several side by side when the
    third dim is short. Results with a role per head show all their variables side by side; of a lens, one prompt is
    shown with the top token written in every cell, and of neuron factors one prompt's tokens; of probes, bars with
    their controls; of attributions, coloured tokens (bars, of one prompt), and of their comparison curves beside random
    rankings; of edges and of routes a graph, and of circuits their faithfulness beside random ones. Colours are centred
    on 0 (`Shown.center` tells the exceptions) with equal room on both sides: blue is towards the answer, red against
    it.

    Args:
        result: of any method.
        variable: by default ``recovered`` for activation patching and causal tracing, else ``value``, else the first
            that can be drawn.
        kind: ``auto``, ``heatmap``, ``line``, ``bar``, ``slider`` or ``facets``.
        select: dims to hold fixed: ``{"pos": "S2"}``; a position by its label or its number.
        center: value of the neutral colour; by default 0; for the metric after an ablation, that of the clean run; or
            the array's attribute ``neutral``.
        title: instead of the one made from the method, site and variable.

    Returns:
        A figure of its own size and look; plotly's global defaults are neither read nor changed.

    Raises:
        ConfigError: no such variable, kind or coordinate; more than three dims are left; or the kind does not fit them.
    """
    if kind != "auto" and kind not in _DIMS:
        raise ConfigError(f"plot(kind={kind!r}) was asked", got="no such kind", allowed=nearest(kind, ("auto", *_DIMS)))
    figure = _figure(result, variable or "", (kind, center, select or {}))
    if title is not None:
        figure.update_layout(title_text=headline(title, figure.layout.width))
    return figure


def _figure(result: Result, variable: str, how: tuple[str, float | None, Mapping[str, object]]) -> go.Figure:
    kind, center, select = how
    of_one = next((draw for fits, draw in _OF_ONE_PROMPT if fits(result, variable)), None)
    if of_one is not None and kind == "auto" and set(select) <= {"prompt"}:
        return of_one(result, variable, select)
    if not variable and not select and kind == "auto":
        own = next((draw for fits, draw in _OWN if fits(result)), None)
        if own is not None:
            return own(result)
        names = panel_names(result)
        if len(names) > 1:
            return panels(result, names)
    name = variable or default_variable(result)
    if name is None:
        return _nothing(result)
    chosen = shown(result, name, select)
    if len(chosen.dims) > MAX_DIMS:
        raise too_many(name, chosen.array)
    if chosen.array.size == 0:
        return _nothing(result)
    return _drawn(chosen, _kind(chosen) if kind == "auto" else kind, center)


def _drawn(chosen: Shown, kind: str, center: float | None) -> go.Figure:
    if len(chosen.dims) not in _DIMS[kind]:
        fitting = [name for name, counts in _DIMS.items() if len(chosen.dims) in counts]
        raise ConfigError(
            f"plot(kind={kind!r}) of {chosen.name!r} was asked",
            got=f"{len(chosen.dims)} dims {chosen.dims}",
            allowed=fitting,
        )
    colored: dict[str, Callable[..., go.Figure]] = {"heatmap": heatmap, "slider": slider, "facets": facets}
    if kind in colored:
        return colored[kind](chosen, default_scale(chosen, center))
    return line(chosen) if kind == "line" else bars(chosen)


def _kind(chosen: Shown) -> str:
    dims = chosen.dims
    if len(dims) == 3:
        return "facets" if chosen.array.sizes[frame_dim(dims)] <= _FEW_FRAMES else "slider"
    if len(dims) == 2:
        return "line" if {"lens", "choice"} & set(dims) else "heatmap"
    texts = bool(dims) and dims[0] in chosen.array.coords and chosen.array.coords[dims[0]].dtype.kind in "UOS"
    return "bar" if not dims or dims[0] in _UNORDERED or texts else "line"


def _nothing(result: Result) -> go.Figure:
    figure = go.Figure()
    figure.add_annotation(text="this result holds no numbers to draw", showarrow=False, font={"size": 14})
    figure.update_layout(xaxis={"visible": False}, yaxis={"visible": False})
    return dress(figure, result.info.title, [], size=(400, 120))
