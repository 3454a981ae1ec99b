"""Activation patching: which clean activations restore the answer in the corrupted run."""

from collections.abc import Hashable

import numpy as np

from mechxai.core.result import Result
from mechxai.explore.palette import Picture, numbers, ticks
from mechxai.explore.panel_context import PanelContext, click_target
from mechxai.figures.text import number
from mechxai.methods.patching.activation_patching import ActivationPatching

_MIN_HEIGHT, _ROW_HEIGHT = 300, 28


def key(context: PanelContext) -> Hashable:
    """What determines the numbers."""
    view = context.view
    return ("patching", view.model, view.prompt, view.corrupted, view.answer, view.wrong, view.site)


def content(context: PanelContext) -> Hashable:
    """What the cells depend on, once there is a result."""
    return (key(context), context.positions.start)


def method(context: PanelContext) -> ActivationPatching:
    """Denoising activation patching of the view's site."""
    over = ("layer", "head") if context.view.site == "z" else ("layer", "pos")
    return ActivationPatching(site=context.view.site, over=over, direction="denoise", metric="logit_diff")


def draw(context: PanelContext, result: Result) -> Picture:
    """The recovered fraction, layers upward: 1 is the clean run's logit difference, 0 the corrupted run's."""
    palette, view = context.palette, context.view
    values = result.data["recovered"].values
    by_head = view.site == "z"
    columns = range(values.shape[1]) if by_head else context.positions
    shown = values[:, columns.start : columns.stop]
    largest = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    names = [str(head) for head in columns] if by_head else context.labels(columns)
    height, axis = max(_MIN_HEIGHT, 90 + _ROW_HEIGHT * len(shown)), "head" if by_head else "pos"
    clicks = [[click_target(layer=row, **{axis: index}) for index in columns] for row in range(len(shown))]
    hover = [
        [f"{view.site} {row}, {name}: {number(float(value))}" for name, value in zip(names, shown[row], strict=True)]
        for row in range(len(shown))
    ]
    heat = palette.cells(shown, hover, clicks, ends=(-largest, largest), unit="recovered", height=height)
    column = view.head if by_head else view.pos - columns[0]
    return palette.figure(
        heat,
        height,
        x=numbers(len(names), "head") if by_head else ticks(names, turned=True),
        y=numbers(len(shown), "layer"),
        shapes=[palette.frame((column, column), (view.layer, view.layer))] if view.layer < len(shown) else [],
    )
