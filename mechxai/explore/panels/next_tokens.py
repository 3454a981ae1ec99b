"""The likeliest next tokens at the chosen layer and position."""

import numpy as np

from mechxai.explore.palette import Picture, ticks
from mechxai.explore.panel_context import PanelContext, click_target, token_label
from mechxai.figures.text import number

_HEIGHT = 300


def draw(context: PanelContext) -> Picture:
    """Bars of probabilities, the likeliest token on top; a click makes a token the answer."""
    view, palette = context.view, context.palette
    reading = context.analysis.lens(view.lens, [view.pos])
    top = [int(token) for token in reading.top_token[view.layer, 0]]
    probability = np.exp(reading.top_logprob[view.layer, 0].numpy())
    texts = [context.analysis.text(token) for token in top]
    colors = [palette.accent if token == context.question.answer else palette.towards for token in top]
    bars = {
        "type": "bar",
        "x": probability.tolist(),
        "y": list(range(len(top))),
        "orientation": "h",
        "marker": {"color": colors, "opacity": 0.85},
        "text": [number(float(value)) for value in probability],
        "textposition": "outside",
        "cliponaxis": False,
        "customdata": [_answer_target(context, token) for token in top],
        "hovertext": [
            f"{token_label(text, 40)}: {number(float(value))}" for text, value in zip(texts, probability, strict=True)
        ],
        "hoverinfo": "text",
    }
    return palette.figure(
        bars,
        _HEIGHT,
        x={"range": [0, 1.12], "title": {"text": "probability"}, "tickvals": [0, 0.5, 1]},
        y={**ticks([token_label(text, 14) for text in texts]), "autorange": "reversed"},
    )


def _answer_target(context: PanelContext, token: int) -> str:
    """The click target that makes a token the answer; a wrong answer equal to it gives way to the next choice."""
    name = context.analysis.token_name(token)
    return click_target(answer=name, wrong="") if token == context.question.wrong else click_target(answer=name)
