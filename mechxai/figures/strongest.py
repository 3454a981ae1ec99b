"""The strongest cell of a result, as a one-line summary."""

from dataclasses import dataclass

import numpy as np

from mechxai.core.result import Result
from mechxai.figures.cells import Cell
from mechxai.figures.headings import display_name
from mechxai.figures.panels import headline_variable
from mechxai.figures.selected_variable import select_variable
from mechxai.figures.text import number


@dataclass(frozen=True)
class Strongest:
    """The cell farthest from no effect.

    Attributes:
        variable: name of the headline variable.
        cell: its strongest cell.
        text: a summary such as ``recovered 0.98 at blocks.0.resid_pre[pos=S2]``.
    """

    variable: str
    cell: Cell
    text: str


def strongest(result: Result) -> Strongest | None:
    """The strongest cell of a result; None if no variable can be drawn or no cell has a value."""
    name = headline_variable(result)
    if name is None:
        return None
    selected = select_variable(result, name)
    distance = np.abs(selected.array.values - selected.center)
    finite = np.isfinite(distance)
    if not finite.any():
        return None
    place = np.unravel_index(int(np.where(finite, distance, -1.0).argmax()), distance.shape)
    scalar = selected
    for dim, index in zip(selected.dims, place, strict=True):  # names one cell only: there may be millions
        scalar = scalar.at(dim, int(index))
    cell = scalar.cells()[0]
    where = f" at {cell.name}" if selected.dims else ""
    unit = "" if selected.unit == "fraction" else selected.unit
    return Strongest(name, cell, f"{display_name(selected)} {number(cell.value, unit)}{where}")
