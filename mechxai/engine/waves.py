"""The waves of a plan: ranges over sorted rows, which become rows only when a wave is about to run."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

from mechxai.engine.affected_range import NEVER, AffectedRange
from mechxai.engine.packing import Packing, Rows


@dataclass(frozen=True)
class Wave:
    """Rows (a cell on a prompt each) that share a pass.

    Attributes:
        cells: the cell of each row.
        prompts: the prompt of each row.
        start: first position of the wave.
        stop: position after the last.
        work: positions times layers.
        starts: first position of each row, where rows differ.
        stops: position after the last of each row, where rows differ.
    """

    cells: tuple[int, ...]
    prompts: tuple[int, ...]
    start: int
    stop: int
    work: float = 0.0
    starts: tuple[int, ...] = ()
    stops: tuple[int, ...] = ()

    def part(self, rows: slice) -> "Wave":
        """The wave of some of the rows."""
        chosen = {name: getattr(self, name)[rows] for name in ("cells", "prompts", "starts", "stops")}
        return replace(self, **chosen)

    def __len__(self) -> int:
        return len(self.cells)


@runtime_checkable
class ChunkWaves(Protocol):
    """The waves of one chunk of prompts, made one after the other when they are asked for."""

    @property
    def n_rows(self) -> int:
        """Number of rows in all waves."""
        ...

    @property
    def work(self) -> float:
        """Positions times layers of all waves."""
        ...

    @property
    def digest(self) -> str:
        """A hash of how the rows are divided."""
        ...

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Wave]: ...
    def cells_on(self, prompts: Iterable[int]) -> list[int]:
        """The cells that the waves compute on at least one of the prompts, in ascending order."""
        ...


@dataclass(frozen=True)
class CellWaves:
    """Waves of whole cells, each on all prompts of a group (levels 0 and 1).

    Attributes:
        order: the cells, those that join last first.
        layers: the number of layers that each cell runs, ``[cell]``.
        n_prompts: number of prompts.
        prompts_at_once: prompts per wave.
        cells_at_once: cells per wave.
        width: positions per row.
        base_layers: layers that each prompt of a wave runs besides its cells.
    """

    order: Sequence[int]
    layers: np.ndarray
    n_prompts: int
    prompts_at_once: int
    cells_at_once: int
    width: int
    base_layers: int

    @property
    def n_rows(self) -> int:
        """Number of rows in all waves."""
        return len(self.order) * self.n_prompts

    @property
    def work(self) -> float:
        """Positions times layers of all waves."""
        groups = -(-len(self.order) // self.cells_at_once)
        return float(self.n_prompts * self.width * (int(self.layers.sum()) + groups * self.base_layers))

    @property
    def digest(self) -> str:
        """Prompts and cells per wave."""
        return f"{self.prompts_at_once} prompts x {self.cells_at_once} cells"

    def __len__(self) -> int:
        return -(-self.n_prompts // self.prompts_at_once) * -(-len(self.order) // self.cells_at_once)

    def __iter__(self) -> Iterator[Wave]:
        for start in range(0, self.n_prompts, self.prompts_at_once):
            prompts = range(start, min(start + self.prompts_at_once, self.n_prompts))
            for first in range(0, len(self.order), self.cells_at_once):
                cells = self.order[first : first + self.cells_at_once]
                work = len(prompts) * self.width * (int(self.layers[list(cells)].sum()) + self.base_layers)
                rows = [(cell, prompt) for cell in cells for prompt in prompts]
                yield Wave(*zip(*rows, strict=True), start=0, stop=self.width, work=float(work))

    def cells_on(self, prompts: Iterable[int]) -> list[int]:
        """Every cell: these levels leave none out."""
        del prompts
        return sorted(self.order)


@dataclass(frozen=True)
class RowWaves:
    """Waves of the rows that their cell can change, on the prompts of a chunk (levels 2 and up).

    Attributes:
        affected: the positions that each cell changes.
        layers: the number of layers that each cell runs, ``[cell]``.
        chunk: the prompts.
        packing: how the rows are sorted and cut.
    """

    affected: AffectedRange
    layers: np.ndarray
    chunk: slice
    packing: Packing

    @property
    def n_rows(self) -> int:
        """Number of rows in all waves."""
        return self.packing.n_rows

    @property
    def work(self) -> float:
        """Positions times layers of all waves."""
        return self.packing.work

    @property
    def digest(self) -> str:
        """A hash of the runs of waves and their windows."""
        hashed = hashlib.blake2b(self.packing.runs.tobytes(), digest_size=16)
        hashed.update(self.packing.windows.tobytes())
        return hashed.hexdigest()

    def __len__(self) -> int:
        return len(self.packing)

    def __iter__(self) -> Iterator[Wave]:
        rows = self.packing.sort(self._rows())
        for chosen, run in self.packing.cuts():
            yield self._wave(rows.take(chosen), run)

    def cells_on(self, prompts: Iterable[int]) -> list[int]:
        """The cells that change something on at least one of the prompts, in ascending order."""
        inside = [prompt for prompt in prompts if self.chunk.start <= prompt < self.chunk.stop]
        earliest = self.affected.starts[:, inside].min(1, initial=NEVER)
        return np.flatnonzero(earliest[self.affected.kind] < NEVER).tolist()

    def _rows(self) -> Rows:
        """The rows of the chunk; 40 bytes each, so they are made when the chunk runs."""
        starts, stops = (table[:, self.chunk] for table in (self.affected.starts, self.affected.stops))
        cells, columns = np.nonzero((starts < NEVER)[self.affected.kind])
        kinds = self.affected.kind[cells]
        return Rows(
            cells, columns + self.chunk.start, starts[kinds, columns], stops[kinds, columns], self.layers[cells]
        )

    def _wave(self, rows: Rows, run: int) -> Wave:
        cells, prompts = tuple(rows.cell.tolist()), tuple(rows.prompt.tolist())
        if len(self.packing.windows):
            start, stop = self.packing.windows[run].tolist()
            return Wave(cells, prompts, start, stop, float(rows.layers.sum() * (stop - start)))
        work = float((rows.layers * (rows.stop - rows.start)).sum())
        starts, stops = tuple(rows.start.tolist()), tuple(rows.stop.tolist())
        return Wave(cells, prompts, min(starts), max(stops), work, starts, stops)
