"""Groups of MLP neurons that fire together, and on which tokens."""

from collections.abc import Hashable

import numpy as np

from mechxai.core.result import Result
from mechxai.explore.palette import Picture, ticks
from mechxai.explore.panel_context import PanelContext, goes
from mechxai.figures.text import number
from mechxai.methods.lens.neuron_factors import NeuronFactors

_LEAST, _ROW, _NAMED = 240, 30, 4
_QUICK = 2e5  # activations that are factored though nobody asked for it


def key(scene: PanelContext) -> Hashable:
    """What decides the numbers."""
    return ("factors", scene.view.model, scene.view.prompt)


def content(scene: PanelContext) -> Hashable:
    """What the cells depend on."""
    return (key(scene), scene.places.start)


def method(scene: PanelContext) -> NeuronFactors:
    """The factorisation that is asked; what ablations of each group do, `mechxai run method=neuron_factors` says."""
    del scene
    return NeuronFactors(draws=0)


def quick(scene: PanelContext) -> bool:
    """Whether the factorisation takes so little that it is made at once."""
    a = scene.reading.model.architecture
    return scene.reading.n_pos * a.n_layers * a.d_mlp <= _QUICK


def draw(scene: PanelContext, result: Result) -> Picture:
    """The largest group on top; a click chooses the position."""
    palette, places, data = scene.palette, scene.places, result.data.isel(prompt=0)
    known = [row for row, share in enumerate(data["share"].values) if np.isfinite(share)]
    if not known:
        return palette.said("no neuron fires: nothing to factor", _LEAST)
    activity = np.nan_to_num(data["activity"].values)[known]
    shown, tokens = activity[:, places.start : places.stop], scene.labels(places)
    strongest = [_strongest(data["neuron_layer"].values[row], data["neuron"].values[row]) for row in known]
    shares = [number(float(data["share"].values[row])) for row in known]
    says = [
        [
            f"<b>group {row}, {share} of the activity</b><br>{token}: {number(float(value))}<br>{names}"
            for token, value in zip(tokens, shown[row], strict=True)
        ]
        for row, (share, names) in enumerate(zip(shares, strongest, strict=True))
    ]
    height = max(_LEAST, 90 + _ROW * len(known))
    clicks = [[goes(pos=at) for at in places]] * len(known)
    reach = float(activity.max()) or 1.0
    cells = palette.cells(shown, says, clicks, ends=(0.0, reach), unit="activity", height=height)
    at, last = scene.view.pos - places[0], len(known) - 1
    return palette.figure(
        cells,
        height,
        x=ticks(tokens, turned=True),
        y={**ticks([f"{row}: {share}" for row, share in enumerate(shares)], "group, share"), "autorange": "reversed"},
        shapes=[palette.frame((at, at), (0, last))],
    )


def _strongest(layers: np.ndarray, neurons: np.ndarray) -> str:
    pairs = [f"m{int(layer)}.n{int(neuron)}" for layer, neuron in zip(layers, neurons, strict=True) if neuron >= 0]
    return "strongest: " + ", ".join(pairs[:_NAMED])
