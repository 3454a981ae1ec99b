"""Shaded intervals around curves."""

import numpy as np
import plotly.graph_objects as go

from mechxai.figures.colors import faint


def add_band(
    figure: go.Figure,
    x: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray],
    *,
    color: str,
    col: int | None = None,
) -> None:
    """Shades the area between the lower and the upper ends of an interval.

    Args:
        figure: changed in place.
        x: ``[point]``.
        ends: lower and upper ends, each ``[point]``.
        color: hexadecimal; drawn mostly transparent.
        col: column of a figure with subplots in one row; None for a figure without subplots.
    """
    low, high = ends
    figure.add_scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([high, low[::-1]]),
        mode="lines",
        fill="toself",
        fillcolor=faint(color),
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
        row=None if col is None else 1,
        col=col,
    )
