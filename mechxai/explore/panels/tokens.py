"""The prompt, token by token: buttons that choose a position, coloured by what mattered to the answer."""

import numpy as np

from mechxai.explore.palette import Picture
from mechxai.explore.panel_context import PanelContext
from mechxai.figures.text import number, printable


def draw(scene: PanelContext, values: np.ndarray) -> list[Picture]:
    """A button per token: its text, its share of the largest value, what it says, whether it is the chosen one."""
    reach = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    return [
        {
            "text": printable(token).replace("\\n", "⏎") or "∅",
            "share": round(max(-1.0, min(1.0, float(values[at]) / reach)), 4),
            "said": f"position {at}: {number(float(values[at]))}",
            "chosen": at == scene.view.pos,
        }
        for at, token in enumerate(scene.reading.tokens)
    ]


def values(scene: PanelContext) -> np.ndarray:
    """What colours the tokens, ``[pos]``."""
    if scene.view.inputs == "attention":
        return scene.reading.pattern(scene.block, scene.view.head)[scene.view.pos]
    return np.nan_to_num(scene.reading.inputs(scene.view.inputs, scene.asked))
