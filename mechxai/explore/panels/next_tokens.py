"""The likeliest next tokens at the chosen position, as the chosen layer has them."""

import numpy as np

from mechxai.explore.palette import Picture, ticks
from mechxai.explore.panel_context import PanelContext, goes, written
from mechxai.figures.text import number

_HEIGHT = 300


def draw(scene: PanelContext) -> Picture:
    """Bars, the likeliest on top; a click asks about that token."""
    view, palette = scene.view, scene.palette
    read = scene.reading.lens(view.lens, [view.pos])
    top = [int(one) for one in read.top_token[view.layer, 0]]
    chance = np.exp(read.top_logprob[view.layer, 0].numpy())
    texts = [scene.reading.text(one) for one in top]
    colors = [palette.accent if one == scene.asked.answer else palette.towards for one in top]
    bars = {
        "type": "bar",
        "x": chance.tolist(),
        "y": list(range(len(top))),
        "orientation": "h",
        "marker": {"color": colors, "opacity": 0.85},
        "text": [number(float(one)) for one in chance],
        "textposition": "outside",
        "cliponaxis": False,
        "customdata": [_asks(scene, one) for one in top],
        "hovertext": [f"{written(text, 40)}: {number(float(one))}" for text, one in zip(texts, chance, strict=True)],
        "hoverinfo": "text",
    }
    return palette.figure(
        bars,
        _HEIGHT,
        x={"range": [0, 1.12], "title": {"text": "probability"}, "tickvals": [0, 0.5, 1]},
        y={**ticks([written(text, 14) for text in texts]), "autorange": "reversed"},
    )


def _asks(scene: PanelContext, token: int) -> str:
    """A click asks about the token; where it was what the answer is set against, against the model's next choice."""
    name = scene.reading.name_of(token)
    return goes(answer=name, wrong="") if token == scene.asked.wrong else goes(answer=name)
