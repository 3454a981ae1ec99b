"""The prompt as one button per token, coloured by attention or by attribution to the answer."""

import numpy as np

from mechxai.explore.palette import Picture
from mechxai.explore.panel_context import PanelContext
from mechxai.figures.text import number, printable


def draw(context: PanelContext, values: np.ndarray) -> list[Picture]:
    """A button per token: its text, its value as a share of the largest, its hover text, whether it is chosen."""
    largest = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    return [
        {
            "text": printable(token).replace("\\n", "⏎") or "∅",
            "share": round(max(-1.0, min(1.0, float(values[pos]) / largest)), 4),
            "hover": f"position {pos}: {number(float(values[pos]))}",
            "chosen": pos == context.view.pos,
        }
        for pos, token in enumerate(context.analysis.tokens)
    ]


def values(context: PanelContext) -> np.ndarray:
    """The scores of the prompt's tokens, ``[pos]``: the chosen head's attention, or an attribution."""
    if context.view.inputs == "attention":
        return context.analysis.pattern(context.block, context.view.head)[context.view.pos]
    return np.nan_to_num(context.analysis.token_scores(context.view.inputs, context.question))
