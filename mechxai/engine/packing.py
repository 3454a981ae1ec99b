"""Packs rows into waves: rows with nearby start positions share a wave that begins at the smallest.

A wave has a fixed cost (weights are read, layers are called) and a cost for every position of every row. A small
dynamic programme over the start positions finds the cheapest cuts. Packing depends on no measurement, so the same
sweep is always packed the same way, and a resumed sweep finds its finished waves.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rows:
    """Rows to compute (a cell on a prompt each), as parallel arrays ``[row]``.

    Attributes:
        cell: number of the cell.
        prompt: number of the prompt.
        start: first position.
        stop: position after the last.
        layers: number of layers that each row runs.
    """

    cell: np.ndarray
    prompt: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    layers: np.ndarray

    def take(self, chosen: np.ndarray) -> "Rows":
        """The chosen rows, in the order of ``chosen``."""
        return Rows(self.cell[chosen], self.prompt[chosen], self.start[chosen], self.stop[chosen], self.layers[chosen])

    def __len__(self) -> int:
        return len(self.cell)


@dataclass(frozen=True)
class Costs:
    """The costs and limits of packing.

    Attributes:
        wave: cost of a wave, in positions per layer.
        rows: maximum number of rows per wave.
        positions: maximum number of positions per wave, over all its rows.
    """

    wave: float
    rows: int
    positions: int


def pack_windows(rows: Rows, costs: Costs, n_layers: int) -> list[Rows]:
    """Waves whose rows all run the same positions: from the smallest start to the largest stop of the wave."""
    waves = []
    for segment in _segments(rows, costs, n_layers):
        chosen = rows.take(segment)
        width = int(chosen.stop.max() - chosen.start.min())
        at_once = max(1, min(costs.rows, costs.positions // width))
        order = np.lexsort((chosen.cell, chosen.prompt, -chosen.layers))
        waves += [chosen.take(order[first : first + at_once]) for first in range(0, len(order), at_once)]
    return waves


def pack_ragged(rows: Rows, costs: Costs) -> list[Rows]:
    """Waves whose rows each run their own positions, sorted by start position and joining layer."""
    order = np.lexsort((rows.prompt, rows.cell, -rows.layers, rows.start))
    sizes = (rows.stop - rows.start)[order]
    waves, first, n_positions = [], 0, 0
    for index, size in enumerate(sizes):
        if index > first and (n_positions + size > costs.positions or index - first >= costs.rows):
            waves.append(rows.take(order[first:index]))
            first, n_positions = index, 0
        n_positions += size
    return [*waves, rows.take(order[first:])] if len(order) else waves


def _segments(rows: Rows, costs: Costs, n_layers: int) -> list[np.ndarray]:
    """Groups of rows with neighbouring starts, cut where the total cost is smallest."""
    starts, group = np.unique(rows.start, return_inverse=True)
    weight = np.bincount(group, weights=rows.layers)
    last = np.array([rows.stop[group == index].max() for index in range(len(starts))])
    best, cut = [0.0], [0]
    for end in range(1, len(starts) + 1):
        stop = np.maximum.accumulate(last[:end][::-1])[::-1]  # of the segment from each start to ``end``
        work = np.cumsum(weight[:end][::-1])[::-1] * (stop - starts[:end])
        total = np.array(best) + costs.wave * n_layers + work
        cut.append(int(total.argmin()))
        best.append(float(total.min()))
    segments, end = [], len(starts)
    while end:
        segments.append(np.flatnonzero((group >= cut[end]) & (group < end)))
        end = cut[end]
    return segments[::-1]
