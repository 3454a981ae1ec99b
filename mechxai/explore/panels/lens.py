"""The lens: each layer's prediction at each position."""

from collections.abc import Hashable

import numpy as np

from mechxai.explore.palette import Picture, ticks
from mechxai.explore.panel_context import PanelContext, click_target, token_label
from mechxai.figures.text import number, safe

_ROW_HEIGHT, _MIN_HEIGHT = 30, 240
_UNITS = {
    "top_logprob": "probability",
    "answer_logprob": "P(answer)",
    "answer_rank": "rank",
    "entropy": "nats",
    "kl_to_final": "nats",
}


def content(context: PanelContext) -> Hashable:
    """What the cells depend on."""
    view = context.view
    question = context.question if view.color.startswith("answer_") else None
    return (view.model, view.prompt, view.lens, view.color, context.positions.start, question)


def draw(context: PanelContext) -> Picture:
    """Layers upward, positions to the right; each cell shows the likeliest token, its colour a statistic."""
    view, palette, positions = context.view, context.palette, context.positions
    target = context.question.answer if view.color.startswith("answer_") else None
    reading = context.analysis.lens(view.lens, list(positions), target)
    top, logprob = reading.top_token.numpy(), reading.top_logprob.numpy()
    values = {
        "top_logprob": np.exp(logprob[..., 0]),
        "answer_logprob": np.exp(reading.target_logprob.numpy()),
        "answer_rank": reading.target_rank.numpy(),
        "entropy": reading.entropy.numpy(),
        "kl_to_final": reading.kl_to_final.numpy(),
    }[view.color]
    n_layers, n_pos = values.shape
    names = {int(token): context.analysis.text(int(token)) for token in np.unique(top[..., :5])}
    tokens = context.labels(positions)
    layers = [*(f"before layer {row}" for row in range(n_layers - 1)), "the model's output"]
    height = max(_MIN_HEIGHT, 74 + _ROW_HEIGHT * n_layers)
    clicks = [[click_target(layer=row, pos=pos) for pos in positions] for row in range(n_layers)]
    hover = [
        [
            _hover_text(f"{tokens[column]}, {layers[row]}", (top[row, column], logprob[row, column]), names)
            for column in range(n_pos)
        ]
        for row in range(n_layers)
    ]
    ends = (0.0, 1.0 if view.color.endswith("logprob") else float(np.nanmax(values)) or 1.0)
    heat = palette.cells(values, hover, clicks, ends=ends, unit=_UNITS[view.color], height=height) | {
        "text": [
            [token_label(names[int(top[row, column, 0])], 8) for column in range(n_pos)] for row in range(n_layers)
        ],
        "texttemplate": "%{text}",
        "textfont": {"size": 11},
    }
    column = view.pos - positions[0]
    return palette.figure(
        heat,
        height,
        x=ticks(tokens, turned=True),
        y=ticks([*map(str, range(n_layers - 1)), "out"], "layer"),
        shapes=[palette.frame((column, column), (view.layer, view.layer))],
    )


def _hover_text(place: str, top: tuple[np.ndarray, np.ndarray], names: dict[int, str]) -> str:
    ranked = list(zip(*top, strict=True))[:5]
    lines = [f"{number(float(np.exp(logprob)))}  {safe(names[int(token)], 24)}" for token, logprob in ranked]
    return "<br>".join([f"<b>{place}</b>", *lines])
