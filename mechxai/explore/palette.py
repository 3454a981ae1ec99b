"""The page's colours for figures, in its light and in its dark dress."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mechxai.figures.colors import DIVERGING, SEQUENTIAL
from mechxai.figures.theme import FONT

Picture = dict[str, Any]  # what plotly draws
_MOST_TURNED = 30  # labels side by side that can still be read
NO_MARGIN = 8  # pixels of a margin with nothing in it
_CLEAR = "rgba(0,0,0,0)"
Stops = tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Palette:
    """Colours of figures.

    Attributes:
        ink: of text.
        quiet: of what is less important.
        line: of axes and grids.
        accent: of what is chosen.
        towards: of what speaks for the answer.
        against: of what speaks against it.
        sequential: from none to much.
        diverging: from against to towards, the middle as the page's ground.
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
        """A figure as a panel shows it: transparent, as wide as there is room, without a title.

        A plain mapping: plotly's figure objects check every property, for longer than an interaction may take.

        Args:
            trace: what is drawn.
            height: in pixels.
            x: of the axis, beside what all have.
            y: likewise.
            **more: of the layout.
        """
        layout = {
            "font": {"family": FONT, "size": 12, "color": self.ink},
            "paper_bgcolor": _CLEAR,
            "plot_bgcolor": _CLEAR,
            "margin": {"l": _beside(y), "r": NO_MARGIN, "t": NO_MARGIN, "b": _below(x)},
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
        says: Sequence[Sequence[str]],
        clicks: Sequence[Sequence[str]],
        *,
        ends: tuple[float, float],
        unit: str,
        height: int,
    ) -> dict[str, object]:
        """Cells coloured by their values.

        Args:
            values: rows and columns.
            says: what each says beside a pointer.
            clicks: where a click on each goes.
            ends: values of the first and the last colour; from against to towards where the first is negative.
            unit: of the values, beside the colour bar.
            height: of the drawing.
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
            "hovertext": says,
            "hoverinfo": "text",
        }

    def _bar(self, title: str, height: int) -> dict[str, object]:
        """A colour bar beside a drawing of this height."""
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
        """Around the cells that are looked at."""
        ends = {"x0": x[0] - 0.5, "x1": x[1] + 0.5, "y0": y[0] - 0.5, "y1": y[1] + 0.5}
        return {"type": "rect", **ends, "line": {"color": self.accent, "width": 2.5}}

    def rims(self, chosen: Sequence[bool]) -> dict[str, object]:
        """Around the nodes of a graph, of which some are looked at."""
        return {
            "color": [self.accent if one else self.quiet for one in chosen],
            "width": [3 if one else 1 for one in chosen],
        }

    def sign(self, value: float) -> str:
        """The colour of what speaks for the answer, or against it."""
        return self.towards if value >= 0 else self.against

    def said(self, text: str, height: int) -> Picture:
        """A figure that is a sentence."""
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


# Plotly can make room for labels by itself, but measures and draws all of them several times for it.
def _beside(axis: Mapping[str, Any]) -> int:
    """Pixels left of a figure, for its longest label and its title."""
    if not axis.get("visible", True):
        return NO_MARGIN
    longest = max((len(label) for label in axis.get("ticktext", ())), default=7)
    return 18 + round(6.4 * longest) + (20 if axis.get("title") else 0)


def _below(axis: Mapping[str, Any]) -> int:
    """Pixels below a figure, for its labels, turned or not, and its title."""
    if not axis.get("visible", True):
        return NO_MARGIN
    longest = max((len(label) for label in axis.get("ticktext", ())), default=4)
    return (14 + round(4.8 * longest) if axis.get("tickangle") else 24) + (20 if axis.get("title") else 0)


def ticks(labels: Sequence[str], title: str = "", *, turned: bool = False) -> dict[str, object]:
    """An axis of cells with these labels; ``turned`` where they are texts below a figure, of many only some."""
    texts = _every(-(-len(labels) // _MOST_TURNED), labels) if turned else list(labels)
    axis: dict[str, object] = {"tickvals": list(range(len(labels))), "ticktext": texts, "showgrid": False}
    if title:
        axis["title"] = {"text": title, "font": {"size": 12}, "standoff": 8}
    return axis | ({"tickangle": -45} if turned else {})


def numbers(count: int, title: str) -> dict[str, object]:
    """An axis of cells that are numbered; of many, every fourth has its number."""
    return ticks(_every(1 if count <= 16 else 4, [str(at) for at in range(count)]), title)


def _every(step: int, labels: Sequence[str]) -> list[str]:
    return [label if at % step == 0 else "" for at, label in enumerate(labels)]


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
# The middle and the low end take the dark ground's colour, so that what stands out is what is large.
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
    """The palette of a page's dress, ``light`` or ``dark``."""
    return DARK if theme == "dark" else LIGHT
