"""Rows laid into waves: rows that start near one another share a wave that starts at the first of them.

A wave costs something of its own (weights are read, layers are called), and every position of every row in it costs.
Where to cut is a small dynamic programme over the starts. Nothing here is measured, so the same sweep is always packed
the same way, and finished waves are found again.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rows:
    """Cells on prompts that must be computed, as parallel arrays ``[row]``.

    Attributes:
        cell: number of the cell.
        prompt: number of the prompt.
        start: first position.
        stop: position after the last.
        layers: layers each row runs.
    """

    cell: np.ndarray
    prompt: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    layers: np.ndarray

    def take(self, chosen: np.ndarray) -> "Rows":
        """Some rows, in the order asked."""
        return Rows(self.cell[chosen], self.prompt[chosen], self.start[chosen], self.stop[chosen], self.layers[chosen])

    def __len__(self) -> int:
        return len(self.cell)


@dataclass(frozen=True)
class Costs:
    """What packing weighs.

    Attributes:
        wave: cost of a wave, in positions per layer.
        rows: rows a wave may hold.
        positions: positions a wave may hold, over all its rows.
    """

    wave: float
    rows: int
    positions: int


def packed(rows: Rows, costs: Costs, n_layers: int) -> list[Rows]:
    """Waves of rows that run the same positions, from the first start to the last stop among them."""
    waves = []
    for segment in _segments(rows, costs, n_layers):
        chosen = rows.take(segment)
        width = int(chosen.stop.max() - chosen.start.min())
        at_once = max(1, min(costs.rows, costs.positions // width))
        order = np.lexsort((chosen.cell, chosen.prompt, -chosen.layers))
        waves += [chosen.take(order[first : first + at_once]) for first in range(0, len(order), at_once)]
    return waves


def ragged(rows: Rows, costs: Costs) -> list[Rows]:
    """Waves of rows that each run their own positions; those that start together, and join together, stand together."""
    order = np.lexsort((rows.prompt, rows.cell, -rows.layers, rows.start))
    sizes = (rows.stop - rows.start)[order]
    waves, first, held = [], 0, 0
    for index, size in enumerate(sizes):
        if index > first and (held + size > costs.positions or index - first >= costs.rows):
            waves.append(rows.take(order[first:index]))
            first, held = index, 0
        held += size
    return [*waves, rows.take(order[first:])] if len(order) else waves


def _segments(rows: Rows, costs: Costs, n_layers: int) -> list[np.ndarray]:
    """Rows by neighbouring starts, cut where the sum of costs is least."""
    starts, group = np.unique(rows.start, return_inverse=True)
    weight = np.bincount(group, weights=rows.layers)
    last = np.array([rows.stop[group == index].max() for index in range(len(starts))])
    best, cut = [0.0], [0]
    for end in range(1, len(starts) + 1):
        stop = np.maximum.accumulate(last[:end][::-1])[::-1]  # of a segment that begins at each start
        work = np.cumsum(weight[:end][::-1])[::-1] * (stop - starts[:end])
        total = np.array(best) + costs.wave * n_layers + work
        cut.append(int(total.argmin()))
        best.append(float(total.min()))
    segments, end = [], len(starts)
    while end:
        segments.append(np.flatnonzero((group >= cut[end]) & (group < end)))
        end = cut[end]
    return segments[::-1]
