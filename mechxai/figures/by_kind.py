"""The figure of each kind of result: the table that `mechxai.figures.plot` reads."""

from collections.abc import Callable, Mapping

import plotly.graph_objects as go

from mechxai.core.result import Result, ResultKind
from mechxai.figures.attention_view import pattern_figure
from mechxai.figures.chain_answers import biasing_figure, chain_curve, planted_figure
from mechxai.figures.chain_flow import flow_figure
from mechxai.figures.chain_votes import vote_figure
from mechxai.figures.circuit import circuit_figure
from mechxai.figures.circuit_curve import circuit_curve
from mechxai.figures.factors import factor_view
from mechxai.figures.faithfulness import faithfulness_figure
from mechxai.figures.lens import lens_view
from mechxai.figures.panels import role_panels
from mechxai.figures.probes import causal_lines, probe_bars
from mechxai.figures.routes import routes_figure
from mechxai.figures.tokens import token_figure

KindFigure = Callable[[Result, str, Mapping[str, object]], go.Figure | None]
"""``(result, variable, select)`` to the figure of the kind, or None where the generic figure fits.

``variable`` is empty and ``select`` has no entries unless the caller of `plot` named them.
"""


def kind_figure(result: Result, variable: str, select: Mapping[str, object]) -> go.Figure | None:
    """The figure that belongs to the result's kind, or None for a heatmap, lines or bars of one variable."""
    return FIGURES.get(result.info.kind, _generic)(result, variable, select)


def _generic(result: Result, variable: str, select: Mapping[str, object]) -> None:
    """A heatmap, lines or bars, by the number of dims."""
    del result, variable, select


def _whole(draw: Callable[[Result], go.Figure | None]) -> KindFigure:
    """A figure of the whole result; a named variable or a slice gets the generic figure."""

    def figure(result: Result, variable: str, select: Mapping[str, object]) -> go.Figure | None:
        return None if variable or select else draw(result)

    return figure


FIGURES: Mapping[ResultKind, KindFigure] = {
    "grid": _generic,
    "patching": _generic,
    "ablation": _generic,
    "head_roles": _whole(role_panels),
    "edges": _whole(circuit_figure),
    "circuit_curve": _whole(circuit_curve),
    "circuit_comparison": _generic,
    "circuit_criteria": _generic,
    "circuit_tests": _generic,
    "circuit_stability": _generic,
    "routes": _whole(routes_figure),
    "lens": lens_view,
    "lens_training": _generic,
    "lens_evaluation": _generic,
    "contributions": _generic,
    "neuron_factors": factor_view,
    "probes": _whole(probe_bars),
    "probe_check": _whole(causal_lines),
    "faithfulness": _whole(faithfulness_figure),
    "attribution_comparison": _whole(faithfulness_figure),
    "rephrasing_stability": _generic,
    "attention": _whole(pattern_figure),
    "chain_curve": _whole(chain_curve),
    "biasing": _whole(biasing_figure),
    "planted_error": _whole(planted_figure),
    "vote": _whole(vote_figure),
    "chain_flow": _whole(flow_figure),
    "attribution": _whole(token_figure),
}
