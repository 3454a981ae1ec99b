"""Axes of figures: tick labels, how many ticks fit, and the size of a cell."""

import math
from dataclasses import dataclass

import xarray as xr

from mechxai.figures.cells import coordinates
from mechxai.figures.text import number, safe, words

TITLES = {"pos": "position", "dest_pos": "position attending", "src_pos": "position attended to"}
_LABEL = 20  # characters
_STEPS = (1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500)


@dataclass(frozen=True)
class Axis:
    """One dim of a figure; its cells are at 0, 1, 2 and so on.

    Attributes:
        dim: name of the dim.
        labels: one per cell, escaped and shortened.
        texts: whether the labels are texts (tokens) rather than numbers.
    """

    dim: str
    labels: tuple[str, ...]
    texts: bool

    @property
    def title(self) -> str:
        """Title of the axis."""
        return safe(TITLES.get(self.dim, words(self.dim)))

    @property
    def turned(self) -> bool:
        """Whether the labels of a horizontal axis are rotated to fit."""
        longest = max(map(len, self.labels), default=0)
        return self.texts and (longest > 10 or (len(self.labels) > 6 and longest > 3))

    def ticks(self, room: int) -> dict[str, object]:
        """Tick positions and labels; every second, fifth, … label if more than ``room`` would be needed."""
        step = _tick_step(math.ceil(len(self.labels) / room))
        places = list(range(0, len(self.labels), step))
        return {"tickmode": "array", "tickvals": places, "ticktext": [self.labels[at] for at in places]}


def axis_of(array: xr.DataArray, dim: str) -> Axis:
    """The axis of one dim."""
    values = coordinates(array, dim)
    labels = tuple(safe(number(value) if isinstance(value, float) else str(value), _LABEL) for value in values)
    return Axis(dim, labels, any(isinstance(value, str) for value in values))


def pixels(count: int, *, per_cell: int, least: int, most: int) -> int:
    """The length in pixels of a side with ``count`` cells, between ``least`` and ``most``."""
    return min(most, max(least, count * per_cell))


def horizontal(axis: Axis, width: int) -> dict[str, object]:
    """Plotly's settings of an axis below a heatmap of ``width`` pixels."""
    per_tick = 15 if axis.turned else 12 + 7 * max(map(len, axis.labels), default=1)
    room = max(2, width // per_tick)
    return {
        **axis.ticks(room),
        "title": {"text": axis.title},
        "tickangle": -60 if axis.turned else 0,
        "range": [-0.5, len(axis.labels) - 0.5],
        "showgrid": False,
    }


def label_height(axis: Axis) -> int:
    """Extra pixels that rotated labels need below a figure."""
    return max(0, 5 * max(map(len, axis.labels), default=0) - 50) if axis.turned else 0


def vertical(axis: Axis, height: int) -> dict[str, object]:
    """Plotly's settings of an axis left of a heatmap; layers go upward, all other dims downward."""
    ends = [-0.5, len(axis.labels) - 0.5]
    return {
        **axis.ticks(max(2, height // 17)),
        "title": {"text": axis.title},
        "range": ends if axis.dim == "layer" else ends[::-1],
        "showgrid": False,
    }


def _tick_step(at_least: int) -> int:
    return next((step for step in _STEPS if step >= at_least), at_least)
