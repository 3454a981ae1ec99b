"""A result in one line: its strongest cell."""

from dataclasses import dataclass

import numpy as np

from mechxai.core.result import Result
from mechxai.figures.cells import Cell
from mechxai.figures.headings import display_name
from mechxai.figures.panels import headline_variable
from mechxai.figures.shown_variable import shown
from mechxai.figures.text import number


@dataclass(frozen=True)
class Strongest:
    """The cell farthest from no effect.

    Attributes:
        variable: the one that a figure of the result shows.
        cell: its strongest.
        said: both in words, ``recovered 0.98 at blocks.0.resid_pre[pos=S2]``.
    """

    variable: str
    cell: Cell
    said: str


def strongest(result: Result) -> Strongest | None:
    """The strongest cell of a result; None where no variable can be drawn or no cell has a value."""
    name = headline_variable(result)
    if name is None:
        return None
    chosen = shown(result, name)
    distance = np.abs(chosen.array.values - chosen.center)
    known = np.isfinite(distance)
    if not known.any():
        return None
    place = np.unravel_index(int(np.where(known, distance, -1.0).argmax()), distance.shape)
    one = chosen
    for dim, index in zip(chosen.dims, place, strict=True):  # results may have millions of cells: only one is named
        one = one.at(dim, int(index))
    cell = one.cells()[0]
    where = f" at {cell.name}" if chosen.dims else ""
    unit = "" if chosen.unit == "fraction" else chosen.unit
    return Strongest(name, cell, f"{display_name(chosen)} {number(cell.value, unit)}{where}")
