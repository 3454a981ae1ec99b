"""Where the chosen head looks."""

from collections.abc import Hashable

from mechxai.explore.palette import Picture, ticks
from mechxai.explore.scene import Scene, goes

_HEIGHT = 380


def content(scene: Scene) -> Hashable:
    """What the cells depend on."""
    return (scene.view.model, scene.view.prompt, scene.block, scene.view.head, scene.places.start)


def draw(scene: Scene) -> Picture:
    """From each position (rows) to those it attends to; a click on a row chooses its position."""
    view, palette, places = scene.view, scene.palette, scene.places
    weights = scene.reading.pattern(scene.block, view.head)[places.start : places.stop, places.start : places.stop]
    tokens, n = scene.labels(places), len(places)
    heat = {
        "type": "heatmap",
        "z": weights.round(4).tolist(),
        "zmin": 0,
        "zmax": 1,
        "xgap": 1,
        "ygap": 1,
        "colorscale": palette.sequential,
        "colorbar": palette.bar("attention", _HEIGHT),
        "customdata": [[goes(pos=at)] * n for at in places],
        "hovertext": [[f"{tokens[row]} → {tokens[at]}: {weights[row, at]:.3f}" for at in range(n)] for row in range(n)],
        "hoverinfo": "text",
    }
    row = view.pos - places[0]
    return palette.figure(
        heat,
        _HEIGHT,
        x=ticks(tokens, "attended to", turned=True),
        y={**ticks(tokens, "attending"), "autorange": "reversed"},
        shapes=[palette.frame((0, n - 1), (row, row))],
    )
