"""Colours of the explorer's figures, in the light and the dark theme, and figures in those colours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mechxai.figures.colors import DIVERGING, SEQUENTIAL
from mechxai.figures.theme import FONT

Picture = dict[str, Any]  # a plotly figure as a dict
_MAX_TURNED = 30  # turned labels side by side that are legible
NO_MARGIN = 8  # pixels of a margin without labels
_CLEAR = "rgba(0,0,0,0)"
Stops = tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Palette:
    """The colours of one theme.

    Attributes:
        ink: of text.
        quiet: of secondary text.
        line: of axes and grids.
        accent: of the chosen cell or node.
        towards: of effects towards the answer.
        against: of effects against the answer.
        sequential: scale from small to large values.
        diverging: scale from ``against`` to ``towards``, its middle the page's background.
    """

    ink: str
    quiet: str
    line: str
    accent: str
    towards: str
    against: str
    sequential: Stops
    diverging: Stops

    def figure(
        self, trace: Mapping[str, object], height: int, *, x: Mapping[str, object], y: Mapping[str, object], **more: Any
    ) -> Picture:
        """A panel's figure: transparent, as wide as the panel, without a title.

        A dict, because plotly's figure objects check every property, which takes longer than an interaction may.

        Args:
            trace: the data.
            height: in pixels.
            x: settings of the x axis beyond the common ones.
            y: settings of the y axis, likewise.
            **more: further settings of the layout.
        """
        layout = {
            "font": {"family": FONT, "size": 12, "color": self.ink},
            "paper_bgcolor": _CLEAR,
            "plot_bgcolor": _CLEAR,
            "margin": {"l": _left_margin(y), "r": NO_MARGIN, "t": NO_MARGIN, "b": _bottom_margin(x)},
            "height": height,
            "autosize": True,
            "showlegend": False,
            "hoverlabel": {"font": {"family": FONT, "size": 12}, "align": "left"},
            "hovermode": "closest",
            "dragmode": False,
            "modebar": {"bgcolor": _CLEAR, "color": self.quiet, "activecolor": self.accent},
            "xaxis": {**self._axis(), **x},
            "yaxis": {**self._axis(), **y},
        }
        return {"data": [trace], "layout": {**layout, **more}}

    def _axis(self) -> dict[str, object]:
        return {
            "color": self.quiet,
            "linecolor": self.line,
            "gridcolor": self.line,
            "zerolinecolor": self.line,
            "zeroline": False,
            "ticks": "outside",
            "ticklen": 4,
            "tickcolor": self.line,
            "tickfont": {"size": 11},
            "ticklabeloverflow": "allow",
        }

    def cells(
        self,
        values: np.ndarray,
        hover: Sequence[Sequence[str]],
        clicks: Sequence[Sequence[str]],
        *,
        ends: tuple[float, float],
        unit: str,
        height: int,
    ) -> dict[str, object]:
        """A heat map.

        Args:
            values: ``[row, column]``.
            hover: each cell's hover text.
            clicks: each cell's click target, see `click_target`.
            ends: values of the first and the last colour; the scale is diverging where the first is negative.
            unit: of the values, shown beside the colour bar.
            height: of the figure, in pixels.
        """
        return {
            "type": "heatmap",
            "z": values.tolist(),
            "zmin": ends[0],
            "zmax": ends[1],
            "xgap": 1,
            "ygap": 1,
            "colorscale": self.diverging if ends[0] < 0 else self.sequential,
            "colorbar": self._bar(unit, height),
            "customdata": clicks,
            "hovertext": hover,
            "hoverinfo": "text",
        }

    def _bar(self, title: str, height: int) -> dict[str, object]:
        """The colour bar of a figure of this height."""
        return {
            "title": {"text": title, "side": "right", "font": {"size": 11}},
            "thickness": 10,
            "outlinewidth": 0,
            "tickfont": {"size": 10, "color": self.quiet},
            "lenmode": "pixels",
            "len": max(120, height - 60),
            "y": 1,
            "yanchor": "top",
        }

    def frame(self, x: tuple[int, int], y: tuple[int, int]) -> dict[str, object]:
        """The frame around the chosen cells."""
        ends = {"x0": x[0] - 0.5, "x1": x[1] + 0.5, "y0": y[0] - 0.5, "y1": y[1] + 0.5}
        return {"type": "rect", **ends, "line": {"color": self.accent, "width": 2.5}}

    def rims(self, chosen: Sequence[bool]) -> dict[str, object]:
        """The outlines of a graph's nodes, thicker and in the accent colour for chosen nodes."""
        return {
            "color": [self.accent if is_chosen else self.quiet for is_chosen in chosen],
            "width": [3 if is_chosen else 1 for is_chosen in chosen],
        }

    def sign(self, value: float) -> str:
        """The colour of an effect towards the answer (positive) or against it (negative)."""
        return self.towards if value >= 0 else self.against

    def message(self, text: str, height: int) -> Picture:
        """A figure that shows a sentence."""
        hidden = {"visible": False, "range": [0, 1]}
        note = {
            "text": text,
            "showarrow": False,
            "font": {"size": 13, "color": self.quiet},
            "x": 0.5,
            "y": 0.5,
            "xref": "x",
            "yref": "y",
        }
        return self.figure({"type": "scatter", "x": [], "y": []}, height, x=hidden, y=hidden, annotations=[note])


# plotly's own automatic margins measure and draw all labels several times
def _left_margin(axis: Mapping[str, Any]) -> int:
    """Pixels to the left of a figure, for its longest label and the axis title."""
    if not axis.get("visible", True):
        return NO_MARGIN
    longest = max((len(label) for label in axis.get("ticktext", ())), default=7)
    return 18 + round(6.4 * longest) + (20 if axis.get("title") else 0)


def _bottom_margin(axis: Mapping[str, Any]) -> int:
    """Pixels below a figure, for its labels, turned or not, and the axis title."""
    if not axis.get("visible", True):
        return NO_MARGIN
    longest = max((len(label) for label in axis.get("ticktext", ())), default=4)
    return (14 + round(4.8 * longest) if axis.get("tickangle") else 24) + (20 if axis.get("title") else 0)


def ticks(labels: Sequence[str], title: str = "", *, turned: bool = False) -> dict[str, object]:
    """A labelled axis of cells; ``turned`` labels are texts below a figure, thinned out where there are many."""
    texts = _every(-(-len(labels) // _MAX_TURNED), labels) if turned else list(labels)
    axis: dict[str, object] = {"tickvals": list(range(len(labels))), "ticktext": texts, "showgrid": False}
    if title:
        axis["title"] = {"text": title, "font": {"size": 12}, "standoff": 8}
    return axis | ({"tickangle": -45} if turned else {})


def numbers(count: int, title: str) -> dict[str, object]:
    """A numbered axis of cells; beyond 16 cells, every fourth has its number."""
    return ticks(_every(1 if count <= 16 else 4, [str(index) for index in range(count)]), title)


def _every(step: int, labels: Sequence[str]) -> list[str]:
    return [label if index % step == 0 else "" for index, label in enumerate(labels)]


LIGHT = Palette(
    ink="#1f2933",
    quiet="#52606d",
    line="#d9dee5",
    accent="#c2570c",
    towards="#2166ac",
    against="#b2182b",
    sequential=SEQUENTIAL,
    diverging=DIVERGING,
)
# the middle and the low end are the dark background, so that large values stand out
DARK = Palette(
    ink="#e4e9f0",
    quiet="#9fb0c3",
    line="#34414f",
    accent="#f5a35c",
    towards="#5aa9e6",
    against="#f0716b",
    sequential=((0.0, "#1a2430"), (0.35, "#1d4a75"), (0.7, "#2f86c9"), (1.0, "#a7d8ff")),
    diverging=(
        (0.0, "#ff9d94"),
        (0.25, "#c0433f"),
        (0.5, "#1a2430"),
        (0.75, "#2f7fc1"),
        (1.0, "#a7d8ff"),
    ),
)


def palette_of(theme: str) -> Palette:
    """The palette of the page's theme, ``light`` or ``dark``."""
    return DARK if theme == "dark" else LIGHT
