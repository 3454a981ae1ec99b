"""Direct contributions to the answer: by layer, by head, and by the source token that a head reads."""

import re
from collections.abc import Hashable, Sequence

import numpy as np

from mechxai.explore.palette import Palette, Picture, numbers, ticks
from mechxai.explore.panel_context import PanelContext, click_target
from mechxai.figures.text import number

_HEIGHT, _MIN_HEIGHT, _ROW_HEIGHT = 300, 240, 26
_PART = re.compile(r"([am])(\d+)")


def by_layer(context: PanelContext) -> Picture:
    """Bars for the embedding, each layer's attention and MLP, and the biases; they sum to the logit difference."""
    palette, data = context.palette, context.analysis.contributions(context.question).data
    sums: dict[str, float] = {}
    for name, value in zip(data["component"].values, data["value"].values[0], strict=True):
        part = str(name).split(".")[0]
        label = part if _PART.fullmatch(part) else "bias" if part in ("norm", "unembed") else str(name)
        sums[label] = sums.get(label, 0.0) + float(value)
    parts = [_PART.fullmatch(name) for name in sums]
    clicks = [click_target(layer=part[2]) if part else "" for part in parts]
    total = number(float(data["logit_diff"].values[0]))
    return palette.figure(
        _bars(palette, list(sums.values()), list(sums), clicks),
        _HEIGHT,
        x=ticks(list(sums), f"a: attention, m: MLP; sum {total}", turned=True),
        y=_logit_axis(context),
    )


def content(context: PanelContext) -> Hashable:
    """What the heads' cells depend on."""
    return (context.view.model, context.view.prompt, context.question)


def by_head(context: PanelContext) -> Picture:
    """Layers upward, heads to the right: blue writes towards the answer, red towards the wrong answer."""
    palette, data = context.palette, context.analysis.contributions(context.question).data
    if "head_value" not in data:
        return palette.message("this model's attention cannot be split by head", _HEIGHT)
    values = data["head_value"].values
    largest = float(np.abs(values).max()) or 1.0
    n_layers, n_heads = values.shape
    height = max(_MIN_HEIGHT, 74 + _ROW_HEIGHT * n_layers)
    clicks = [[click_target(layer=row, head=head) for head in range(n_heads)] for row in range(n_layers)]
    hover = [
        [f"head {row}.{head}: {number(float(values[row, head]), 'logits')}" for head in range(n_heads)]
        for row in range(n_layers)
    ]
    heat = palette.cells(values, hover, clicks, ends=(-largest, largest), unit="logits", height=height)
    head, layer = context.view.head, context.block
    return palette.figure(
        heat,
        height,
        x=numbers(n_heads, "head"),
        y=numbers(n_layers, "layer"),
        shapes=[palette.frame((head, head), (layer, layer))],
    )


def by_token(context: PanelContext) -> Picture:
    """The chosen head's contribution to the answer, split by the tokens it reads."""
    palette, data, positions = context.palette, context.analysis.contributions(context.question).data, context.positions
    if "source_value" not in data:
        return palette.message("this model's heads cannot be split by source token", _HEIGHT)
    values = np.nan_to_num(data["source_value"].values[0, context.block, context.view.head])[
        positions.start : positions.stop
    ]
    tokens = context.labels(positions)
    bars = _bars(palette, values.tolist(), tokens, [click_target(pos=pos) for pos in positions])
    return palette.figure(bars, _HEIGHT, x=ticks(tokens, turned=True), y=_logit_axis(context))


def _bars(palette: Palette, values: Sequence[float], names: Sequence[str], clicks: Sequence[str]) -> dict[str, object]:  # noqa: PLR0917 - three lists of one length
    return {
        "type": "bar",
        "x": list(range(len(values))),
        "y": list(values),
        "marker": {"color": [palette.sign(value) for value in values]},
        "customdata": list(clicks),
        "hovertext": [f"{name}: {number(value, 'logits')}" for name, value in zip(names, values, strict=True)],
        "hoverinfo": "text",
    }


def _logit_axis(context: PanelContext) -> dict[str, object]:
    return {"title": {"text": f"logits, {context.contrast_label}", "font": {"size": 12}}, "zeroline": True}
