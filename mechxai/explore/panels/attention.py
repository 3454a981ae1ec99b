"""The attention pattern of the chosen head."""

from collections.abc import Hashable

from mechxai.explore.palette import Picture, ticks
from mechxai.explore.panel_context import PanelContext, click_target

_HEIGHT = 380


def content(context: PanelContext) -> Hashable:
    """What the cells depend on."""
    return (context.view.model, context.view.prompt, context.block, context.view.head, context.positions.start)


def draw(context: PanelContext) -> Picture:
    """Attention from each position (rows) to each position (columns); a click on a row chooses its position."""
    view, palette, positions = context.view, context.palette, context.positions
    weights = context.analysis.pattern(context.block, view.head)[
        positions.start : positions.stop, positions.start : positions.stop
    ]
    tokens, n_pos = context.labels(positions), len(positions)
    hover = [
        [f"{tokens[dest]} → {tokens[src]}: {weights[dest, src]:.3f}" for src in range(n_pos)] for dest in range(n_pos)
    ]
    clicks = [[click_target(pos=pos)] * n_pos for pos in positions]
    heat = palette.cells(weights.round(4), hover, clicks, ends=(0.0, 1.0), unit="attention", height=_HEIGHT)
    row = view.pos - positions[0]
    return palette.figure(
        heat,
        _HEIGHT,
        x=ticks(tokens, "attended to", turned=True),
        y={**ticks(tokens, "attending"), "autorange": "reversed"},
        shapes=[palette.frame((0, n_pos - 1), (row, row))],
    )
