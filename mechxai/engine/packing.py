"""Packs rows into waves: rows with nearby start positions share a wave that begins at the smallest.

A wave has a fixed cost (weights are read, layers are called) and a cost for every position of every row. A small
dynamic programme over the start positions finds the cheapest cuts. Packing counts rows with the same positions and
never lists them, so that a plan of millions of rows is quick. It depends on no measurement: the same sweep is always
packed the same way, and a resumed sweep finds its finished waves.
"""

import itertools
from collections.abc import Callable, Iterator
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

    def take(self, chosen: np.ndarray | slice) -> "Rows":
        """The chosen rows, in the order of ``chosen``."""
        return Rows(self.cell[chosen], self.prompt[chosen], self.start[chosen], self.stop[chosen], self.layers[chosen])

    def __len__(self) -> int:
        return len(self.cell)


@dataclass(frozen=True)
class Groups:
    """How many rows run the same positions, as parallel arrays ``[group]``, sorted by start and stop.

    Attributes:
        start: first position.
        stop: position after the last.
        rows: number of rows.
        layers: the number of layers of all rows, added up.
    """

    start: np.ndarray
    stop: np.ndarray
    rows: np.ndarray
    layers: np.ndarray

    def __len__(self) -> int:
        return len(self.start)


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


@dataclass(frozen=True)
class Packing:
    """How rows are sorted and divided into waves; waves of the same size in a row are one run.

    Attributes:
        sort: sorts the rows.
        runs: rows per wave and number of waves of each run, ``[run, 2]``.
        windows: start and stop of the waves of each run, ``[run, 2]``; empty where each row runs its own positions.
        work: positions times layers of all waves.
        largest: positions of the largest wave, over all its rows.
    """

    sort: Callable[[Rows], Rows]
    runs: np.ndarray
    windows: np.ndarray
    work: float
    largest: int

    def __len__(self) -> int:
        """The number of waves."""
        return int(self.runs[:, 1].sum())

    @property
    def n_rows(self) -> int:
        """The number of rows in all waves."""
        return int(self.runs.prod(1).sum())

    def cuts(self) -> Iterator[tuple[slice, int]]:
        """The sorted rows of each wave.

        Yields:
            The rows, and the number of the wave's run.
        """
        first = 0
        for number, (size, count) in enumerate(self.runs.tolist()):
            for start in range(first, first + size * count, size):
                yield slice(start, start + size), number
            first += size * count


def grouped(start: np.ndarray, stop: np.ndarray, *, rows: np.ndarray, layers: np.ndarray) -> Groups:
    """The groups of rows with the same positions.

    Args:
        start: first positions, ``[n]``.
        stop: positions after the last, ``[n]``.
        rows: the number of rows with these positions, ``[n]``.
        layers: the layers of these rows, added up, ``[n]``.
    """
    width = int(stop.max()) + 1 if len(stop) else 1
    keys, group = np.unique(start.astype(np.int64) * width + stop, return_inverse=True)
    sums = (np.bincount(group, weights=weights, minlength=len(keys)).astype(np.int64) for weights in (rows, layers))
    return Groups(keys // width, keys % width, *sums)


def pack_windows(groups: Groups, costs: Costs, n_layers: int) -> Packing:
    """Waves whose rows all run the same positions: from the smallest start to the largest stop of their segment."""
    firsts = _segments(groups, costs, n_layers)
    runs: list[tuple[int, int]] = []
    windows: list[tuple[int, int]] = []
    work, largest = 0.0, 0
    for first, last in itertools.pairwise([*firsts, len(groups)]):
        window = (int(groups.start[first]), int(groups.stop[first:last].max()))
        width, n_rows = window[1] - window[0], int(groups.rows[first:last].sum())
        at_once = max(1, min(costs.rows, costs.positions // width))
        parts = [run for run in ((at_once, n_rows // at_once), (n_rows % at_once, 1)) if all(run)]
        runs += parts
        windows += [window] * len(parts)
        work += float(groups.layers[first:last].sum()) * width
        largest = max(largest, parts[0][0] * width)
    starts = groups.start[firsts]

    def sort(rows: Rows) -> Rows:
        segment = np.searchsorted(starts, rows.start, side="right")
        return rows.take(np.lexsort((rows.cell, rows.prompt, -rows.layers, segment)))

    return Packing(sort, _pairs(runs), _pairs(windows), work, largest)


def pack_ragged(groups: Groups, costs: Costs) -> Packing:
    """Waves whose rows each run their own positions, sorted by positions and joining layer."""
    runs: list[tuple[int, int]] = []
    n_rows = n_positions = largest = 0  # of the wave that is being filled
    for size, count in zip((groups.stop - groups.start).tolist(), groups.rows.tolist(), strict=True):
        full = max(1, min(costs.positions // size, costs.rows))  # rows of this size in a wave of their own
        room = min((costs.positions - n_positions) // size, costs.rows - n_rows) if n_rows else full
        taken = min(max(0, room), count)
        n_rows, n_positions, left = n_rows + taken, n_positions + taken * size, count - taken
        if left:
            whole = (left - 1) // full  # the last wave of this size is left open
            runs += [(n_rows, 1), (full, whole)] if whole else [(n_rows, 1)]
            largest = max(largest, n_positions, full * size if whole else 0)
            n_rows = left - whole * full
            n_positions = n_rows * size
    runs += [(n_rows, 1)] if n_rows else []
    work = float((groups.layers * (groups.stop - groups.start)).sum())
    return Packing(_by_positions, _pairs(runs), _pairs([]), work, max(largest, n_positions))


def _by_positions(rows: Rows) -> Rows:
    return rows.take(np.lexsort((rows.prompt, rows.cell, -rows.layers, rows.stop, rows.start)))


def _pairs(pairs: list[tuple[int, int]]) -> np.ndarray:
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _segments(groups: Groups, costs: Costs, n_layers: int) -> list[int]:
    """The first group of each run of neighbouring starts, cut where the total cost is smallest."""
    if not len(groups):
        return []
    firsts = np.flatnonzero(np.diff(groups.start, prepend=-1))  # the first group of each start
    starts, weight = groups.start[firsts], np.add.reduceat(groups.layers, firsts).astype(float)
    last = np.maximum.reduceat(groups.stop, firsts)
    best, cut = [0.0], [0]
    for end in range(1, len(starts) + 1):
        stop = np.maximum.accumulate(last[:end][::-1])[::-1]  # of the segment from each start to ``end``
        work = np.cumsum(weight[:end][::-1])[::-1] * (stop - starts[:end])
        total = np.array(best) + costs.wave * n_layers + work
        cut.append(int(total.argmin()))
        best.append(float(total.min()))
    segments, end = [], len(starts)
    while end:
        end = cut[end]
        segments.append(int(firsts[end]))
    return segments[::-1]
