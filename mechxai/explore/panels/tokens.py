"""The prompt, token by token: buttons that choose a position, coloured by what mattered to the answer."""

from typing import Any

import numpy as np
from dash import html

from mechxai.explore.scene import Scene
from mechxai.figures.text import number, printable


def draw(scene: Scene, values: np.ndarray) -> list[html.Button]:
    """A button per token, coloured by its share of the largest value."""
    view, reading = scene.view, scene.reading
    reach = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    return [
        html.Button(
            html.Bdi(printable(token).replace("\\n", "⏎") or "∅"),
            className="token chosen" if at == view.pos else "token",
            type="button",
            title=f"position {at}: {number(float(values[at]))}",
            style={"backgroundColor": _color(float(values[at]) / reach)},
            **_place(at, chosen=at == view.pos),
        )
        for at, token in enumerate(reading.tokens)
    ]


def _place(at: int, *, chosen: bool) -> dict[str, Any]:
    """Attributes by which the page's script, and those who listen to the page, know a token."""
    return {"data-pos": str(at), "aria-pressed": "true" if chosen else "false"}


def values(scene: Scene) -> np.ndarray:
    """What colours the tokens, ``[pos]``."""
    if scene.view.inputs == "attention":
        return scene.reading.pattern(scene.block, scene.view.head)[scene.view.pos]
    return np.nan_to_num(scene.reading.inputs(scene.view.inputs, scene.asked))


def _color(share: float) -> str:
    """Of a share of the largest value, on whatever ground the page has."""
    channel = "--towards" if share >= 0 else "--against"
    return f"color-mix(in srgb, var({channel}) {round(min(1.0, abs(share)) * 62)}%, transparent)"
