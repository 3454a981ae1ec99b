"""What every part of the model writes towards the answer: by layer, by head, and by the token a head read."""

import re
from collections.abc import Hashable, Sequence

import numpy as np

from mechxai.explore.palette import Palette, Picture, numbers, ticks
from mechxai.explore.panel_context import PanelContext, goes
from mechxai.figures.text import number

_HEIGHT, _LEAST, _ROW = 300, 240, 26
_PART = re.compile(r"([am])(\d+)")


def by_layer(scene: PanelContext) -> Picture:
    """Bars over embedding, attention and MLP of each layer, and biases; they sum to the logit difference."""
    palette, data = scene.palette, scene.reading.contributions(scene.asked).data
    sums: dict[str, float] = {}
    for name, value in zip(data["component"].values, data["value"].values[0], strict=True):
        part = str(name).split(".")[0]
        label = part if _PART.fullmatch(part) else "bias" if part in ("norm", "unembed") else str(name)
        sums[label] = sums.get(label, 0.0) + float(value)
    parts = [_PART.fullmatch(name) for name in sums]
    total = number(float(data["logit_diff"].values[0]))
    return palette.figure(
        _bars(palette, list(sums.values()), list(sums), [goes(layer=one[2]) if one else "" for one in parts]),
        _HEIGHT,
        x=ticks(list(sums), f"a: attention, m: MLP; sum {total}", turned=True),
        y=_logits(scene),
    )


def content(scene: PanelContext) -> Hashable:
    """What the heads' cells depend on."""
    return (scene.view.model, scene.view.prompt, scene.asked)


def by_head(scene: PanelContext) -> Picture:
    """Layers upward, heads to the right: blue writes the answer, red what it is set against."""
    palette, data = scene.palette, scene.reading.contributions(scene.asked).data
    if "head_value" not in data:
        return palette.said("this model's attention cannot be split by head", _HEIGHT)
    values = data["head_value"].values
    reach = float(np.abs(values).max()) or 1.0
    n_layers, n_heads = values.shape
    height = max(_LEAST, 74 + _ROW * n_layers)
    clicks = [[goes(layer=row, head=at) for at in range(n_heads)] for row in range(n_layers)]
    says = [
        [f"head {row}.{at}: {number(float(values[row, at]), 'logits')}" for at in range(n_heads)]
        for row in range(n_layers)
    ]
    heat = palette.cells(values, says, clicks, ends=(-reach, reach), unit="logits", height=height)
    head, layer = scene.view.head, scene.block
    return palette.figure(
        heat,
        height,
        x=numbers(n_heads, "head"),
        y=numbers(n_layers, "layer"),
        shapes=[palette.frame((head, head), (layer, layer))],
    )


def by_token(scene: PanelContext) -> Picture:
    """What the chosen head writes towards the answer from each token it reads."""
    palette, data, places = scene.palette, scene.reading.contributions(scene.asked).data, scene.places
    if "source_value" not in data:
        return palette.said("this model's heads cannot be split by the token they read", _HEIGHT)
    values = np.nan_to_num(data["source_value"].values[0, scene.block, scene.view.head])[places.start : places.stop]
    tokens = scene.labels(places)
    bars = _bars(palette, values.tolist(), tokens, [goes(pos=at) for at in places])
    return palette.figure(bars, _HEIGHT, x=ticks(tokens, turned=True), y=_logits(scene))


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


def _logits(scene: PanelContext) -> dict[str, object]:
    return {"title": {"text": f"logits, {scene.pair}", "font": {"size": 12}}, "zeroline": True}
