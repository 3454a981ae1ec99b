"""Axes of figures: what stands at each tick, how many ticks fit, how large a cell is."""

import math
from dataclasses import dataclass

import xarray as xr

from mechxai.figures.cells import coordinates
from mechxai.figures.text import number, safe, words

TITLES = {"pos": "position", "dest_pos": "position attending", "src_pos": "position attended to"}
_LABEL = 20


@dataclass(frozen=True)
class Axis:
    """One dim of a figure; cells stand at 0, 1, 2 and on.

    Attributes:
        dim: name of the dim.
        labels: one per cell, made harmless and short.
        texts: whether the labels are texts (tokens) and not numbers.
    """

    dim: str
    labels: tuple[str, ...]
    texts: bool

    @property
    def title(self) -> str:
        """Of the axis."""
        return safe(TITLES.get(self.dim, words(self.dim)))

    @property
    def turned(self) -> bool:
        """Whether labels below the figure must stand upright to fit."""
        longest = max(map(len, self.labels), default=0)
        return self.texts and (longest > 10 or (len(self.labels) > 6 and longest > 3))

    def ticks(self, room: int) -> dict[str, object]:
        """Tick places and labels; every second, fifth, … where ``room`` ticks do not hold them all."""
        step = _step(math.ceil(len(self.labels) / room))
        places = list(range(0, len(self.labels), step))
        return {"tickmode": "array", "tickvals": places, "ticktext": [self.labels[at] for at in places]}


def axis_of(array: xr.DataArray, dim: str) -> Axis:
    """The axis of one dim."""
    along = coordinates(array, dim)
    return Axis(
        dim, tuple(safe(_short(value), _LABEL) for value in along), any(isinstance(value, str) for value in along)
    )


def pixels(count: int, *, per_cell: int, least: int, most: int) -> int:
    """How long a side is that holds ``count`` cells."""
    return min(most, max(least, count * per_cell))


def below(axis: Axis, width: int) -> dict[str, object]:
    """Plotly's settings of an axis below a heatmap of this width."""
    per_tick = 15 if axis.turned else 12 + 7 * max(map(len, axis.labels), default=1)
    room = max(2, width // per_tick)
    return {
        **axis.ticks(room),
        "title": {"text": axis.title},
        "tickangle": -60 if axis.turned else 0,
        "range": [-0.5, len(axis.labels) - 0.5],
        "showgrid": False,
    }


def foot(axis: Axis) -> int:
    """Pixels that labels below a figure take beyond the usual."""
    return max(0, 5 * max(map(len, axis.labels), default=0) - 50) if axis.turned else 0


def beside(axis: Axis, height: int) -> dict[str, object]:
    """Plotly's settings of an axis left of a heatmap; layers grow upward, all else reads from the top."""
    ends = [-0.5, len(axis.labels) - 0.5]
    return {
        **axis.ticks(max(2, height // 17)),
        "title": {"text": axis.title},
        "range": ends if axis.dim == "layer" else ends[::-1],
        "showgrid": False,
    }


def _short(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)


def _step(at_least: int) -> int:
    return next((step for step in (1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500) if step >= at_least), at_least)
