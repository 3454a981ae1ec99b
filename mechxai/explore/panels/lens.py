"""What every layer would say at every position."""

from collections.abc import Hashable

import numpy as np

from mechxai.explore.palette import Picture, ticks
from mechxai.explore.panel_context import PanelContext, goes, written
from mechxai.figures.text import number, safe

_ROW, _LEAST = 30, 240
_MEANING = {
    "top_logprob": "probability",
    "answer_logprob": "P(answer)",
    "answer_rank": "rank",
    "entropy": "nats",
    "kl_to_final": "nats",
}


def content(scene: PanelContext) -> Hashable:
    """What the cells depend on."""
    view = scene.view
    asked = scene.asked if view.color.startswith("answer_") else None
    return (view.model, view.prompt, view.lens, view.color, scene.places.start, asked)


def draw(scene: PanelContext) -> Picture:
    """Layers upward, positions to the right, the likeliest token in every cell, a statistic as its colour."""
    view, palette, places = scene.view, scene.palette, scene.places
    read = scene.reading.lens(view.lens, list(places), scene.asked.answer if view.color.startswith("answer_") else None)
    top, logprob = read.top_token.numpy(), read.top_logprob.numpy()
    values = {
        "top_logprob": np.exp(logprob[..., 0]),
        "answer_logprob": np.exp(read.target_logprob.numpy()),
        "answer_rank": read.target_rank.numpy(),
        "entropy": read.entropy.numpy(),
        "kl_to_final": read.kl_to_final.numpy(),
    }[view.color]
    n_layers, n = values.shape
    names = {int(token): scene.reading.text(int(token)) for token in np.unique(top[..., :5])}
    tokens = scene.labels(places)
    layers = [*(f"before layer {row}" for row in range(n_layers - 1)), "the model's output"]
    height = max(_LEAST, 74 + _ROW * n_layers)
    clicks = [[goes(layer=row, pos=at) for at in places] for row in range(n_layers)]
    says = [
        [_hover(f"{tokens[at]}, {layers[row]}", (top[row, at], logprob[row, at]), names) for at in range(n)]
        for row in range(n_layers)
    ]
    ends = (0.0, 1.0 if view.color.endswith("logprob") else float(np.nanmax(values)) or 1.0)
    heat = palette.cells(values, says, clicks, ends=ends, unit=_MEANING[view.color], height=height) | {
        "text": [[written(names[int(top[row, at, 0])], 8) for at in range(n)] for row in range(n_layers)],
        "texttemplate": "%{text}",
        "textfont": {"size": 11},
    }
    at = view.pos - places[0]
    return palette.figure(
        heat,
        height,
        x=ticks(tokens, turned=True),
        y=ticks([*map(str, range(n_layers - 1)), "out"], "layer"),
        shapes=[palette.frame((at, at), (view.layer, view.layer))],
    )


def _hover(where: str, top: tuple[np.ndarray, np.ndarray], names: dict[int, str]) -> str:
    ranked = list(zip(*top, strict=True))[:5]
    lines = [f"{number(float(np.exp(logprob)))}  {safe(names[int(one)], 24)}" for one, logprob in ranked]
    return "<br>".join([f"<b>{where}</b>", *lines])
