"""Activation patching of the prompt: what brings the answer back when it is put into the corrupted run."""

from collections.abc import Hashable

import numpy as np

from mechxai.core.result import Result
from mechxai.explore.palette import Picture, numbers, ticks
from mechxai.explore.panel_context import PanelContext, goes
from mechxai.figures.text import number
from mechxai.methods.patching.activation_patching import ActivationPatching

_HEIGHT, _ROW = 300, 28


def key(scene: PanelContext) -> Hashable:
    """What decides the numbers."""
    view = scene.view
    return ("patching", view.model, view.prompt, view.corrupted, view.answer, view.wrong, view.site)


def content(scene: PanelContext) -> Hashable:
    """What the cells depend on, once there are any."""
    return (key(scene), scene.places.start)


def method(scene: PanelContext) -> ActivationPatching:
    """The sweep that is asked."""
    over = ("layer", "head") if scene.view.site == "z" else ("layer", "pos")
    return ActivationPatching(site=scene.view.site, over=over, direction="denoise", metric="logit_diff")


def draw(scene: PanelContext, result: Result) -> Picture:
    """Recovered, layers upward: 1 is the clean run's logit difference, 0 the corrupted one's."""
    palette, view = scene.palette, scene.view
    values = result.data["recovered"].values
    by_head = view.site == "z"
    places = range(values.shape[1]) if by_head else scene.places
    shown = values[:, places.start : places.stop]
    reach = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    names = [str(at) for at in places] if by_head else scene.labels(places)
    height, kind = max(_HEIGHT, 90 + _ROW * len(shown)), "head" if by_head else "pos"
    clicks = [[goes(layer=row, **{kind: at}) for at in places] for row in range(len(shown))]
    says = [
        [f"{view.site} {row}, {name}: {number(float(value))}" for name, value in zip(names, shown[row], strict=True)]
        for row in range(len(shown))
    ]
    heat = palette.cells(shown, says, clicks, ends=(-reach, reach), unit="recovered", height=height)
    at = view.head if by_head else view.pos - places[0]
    return palette.figure(
        heat,
        height,
        x=numbers(len(names), "head") if by_head else ticks(names, turned=True),
        y=numbers(len(shown), "layer"),
        shapes=[palette.frame((at, at), (view.layer, view.layer))] if view.layer < len(shown) else [],
    )
