"""Groups of MLP neurons that fire together, and the tokens on which they are active."""

from collections.abc import Hashable

import numpy as np

from mechxai.core.result import Result
from mechxai.explore.palette import Picture, ticks
from mechxai.explore.panel_context import PanelContext, click_target
from mechxai.figures.text import number
from mechxai.methods.lens.neuron_factors import NeuronFactors

_MIN_HEIGHT, _ROW_HEIGHT, _N_NAMED = 240, 30, 4
_QUICK = 2e5  # activations that are factored without a click on Run


def key(context: PanelContext) -> Hashable:
    """What determines the factors."""
    return ("factors", context.view.model, context.view.prompt)


def content(context: PanelContext) -> Hashable:
    """What the cells depend on."""
    return (key(context), context.positions.start)


def method(context: PanelContext) -> NeuronFactors:
    """The factorisation, without the ablations that `mechxai run method=neuron_factors` adds."""
    del context
    return NeuronFactors(draws=0)


def quick(context: PanelContext) -> bool:
    """Whether the factorisation is so fast that it runs without being started."""
    a = context.analysis.model.architecture
    return context.analysis.n_pos * a.n_layers * a.d_mlp <= _QUICK


def draw(context: PanelContext, result: Result) -> Picture:
    """Groups (rows, the largest on top) by positions; a click chooses the position."""
    palette, positions, data = context.palette, context.positions, result.data.isel(prompt=0)
    rows = [row for row, share in enumerate(data["share"].values) if np.isfinite(share)]
    if not rows:
        return palette.message("no neuron fires: nothing to factor", _MIN_HEIGHT)
    activity = np.nan_to_num(data["activity"].values)[rows]
    shown, tokens = activity[:, positions.start : positions.stop], context.labels(positions)
    strongest = [_strongest(data["neuron_layer"].values[row], data["neuron"].values[row]) for row in rows]
    shares = [number(float(data["share"].values[row])) for row in rows]
    hover = [
        [
            f"<b>group {row}, {share} of the activity</b><br>{token}: {number(float(value))}<br>{names}"
            for token, value in zip(tokens, shown[row], strict=True)
        ]
        for row, (share, names) in enumerate(zip(shares, strongest, strict=True))
    ]
    height = max(_MIN_HEIGHT, 90 + _ROW_HEIGHT * len(rows))
    clicks = [[click_target(pos=pos) for pos in positions]] * len(rows)
    largest = float(activity.max()) or 1.0
    cells = palette.cells(shown, hover, clicks, ends=(0.0, largest), unit="activity", height=height)
    column, last = context.view.pos - positions[0], len(rows) - 1
    return palette.figure(
        cells,
        height,
        x=ticks(tokens, turned=True),
        y={**ticks([f"{row}: {share}" for row, share in enumerate(shares)], "group, share"), "autorange": "reversed"},
        shapes=[palette.frame((column, column), (0, last))],
    )


def _strongest(layers: np.ndarray, neurons: np.ndarray) -> str:
    """The strongest neurons of a group, by name."""
    names = [f"m{int(layer)}.n{int(neuron)}" for layer, neuron in zip(layers, neurons, strict=True) if neuron >= 0]
    return "strongest: " + ", ".join(names[:_N_NAMED])
