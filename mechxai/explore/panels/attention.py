"""Where the chosen head looks."""

from collections.abc import Hashable

from mechxai.explore.palette import Picture, ticks
from mechxai.explore.panel_context import PanelContext, goes

_HEIGHT = 380


def content(scene: PanelContext) -> Hashable:
    """What the cells depend on."""
    return (scene.view.model, scene.view.prompt, scene.block, scene.view.head, scene.places.start)


def draw(scene: PanelContext) -> Picture:
    """From each position (rows) to those it attends to; a click on a row chooses its position."""
    view, palette, places = scene.view, scene.palette, scene.places
    weights = scene.reading.pattern(scene.block, view.head)[places.start : places.stop, places.start : places.stop]
    tokens, n = scene.labels(places), len(places)
    says = [[f"{tokens[row]} → {tokens[at]}: {weights[row, at]:.3f}" for at in range(n)] for row in range(n)]
    clicks = [[goes(pos=at)] * n for at in places]
    heat = palette.cells(weights.round(4), says, clicks, ends=(0.0, 1.0), unit="attention", height=_HEIGHT)
    row = view.pos - places[0]
    return palette.figure(
        heat,
        _HEIGHT,
        x=ticks(tokens, "attended to", turned=True),
        y={**ticks(tokens, "attending"), "autorange": "reversed"},
        shapes=[palette.frame((0, n - 1), (row, row))],
    )
