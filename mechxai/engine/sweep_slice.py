"""Some cells of a sweep on some prompts, with edits that hold the values of just these prompts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Edit, Intervention
from mechxai.core.metric import Metric
from mechxai.core.shapes import Rows
from mechxai.core.site import Site
from mechxai.engine.sweep import Cell, Sweep


@dataclass(frozen=True)
class SweepSlice:
    """Some cells on some prompts; the edits hold the values of these prompts only."""

    batch: ContrastBatch
    run: str
    cells: Sequence[Cell]
    metric: Metric
    base: Cell = ()

    def rows(self, chosen: slice) -> "SweepSlice":
        """The slice of some of the prompts."""
        cut = EditMapping(lambda edit: edit.rows(chosen))
        return SweepSlice(
            self.batch.rows(chosen), self.run, [cut(cell) for cell in self.cells], self.metric, cut(self.base)
        )

    def only(self, cells: Sequence[int]) -> "SweepSlice":
        """The slice of some of the cells."""
        return SweepSlice(self.batch, self.run, [self.cells[index] for index in cells], self.metric, self.base)

    @property
    def sites(self) -> list[Site]:
        """The whole sites that are edited."""
        return list({intervention.site.whole: None for cell in (self.base, *self.cells) for intervention in cell})


def slice_sweep(sweep: Sweep, prompts: Rows, cells: Sequence[int]) -> SweepSlice:
    """The slice of a sweep with these cells on these prompts."""
    cut = EditMapping(lambda edit: edit.rows(prompts))
    chosen = [cut(sweep.cells[index]) for index in cells]
    return SweepSlice(sweep.batch.rows(prompts), sweep.run, chosen, sweep.metric, cut(sweep.base))


@dataclass(frozen=True)
class EditMapping:
    """Applies a function to every edit of a cell, once per edit, so that cells that share an edit still share it."""

    function: Callable[[Edit], Edit]
    results: dict[int, tuple[Edit, Edit]] = field(default_factory=dict)

    def __call__(self, cell: Cell) -> Cell:
        """The cell with the function applied to its edits."""
        return tuple(Intervention(intervention.site, self.edit(intervention.edit)) for intervention in cell)

    def edit(self, edit: Edit) -> Edit:
        """The result for an edit. The edit is kept beside it, so that no other object gets its id."""
        if id(edit) not in self.results:
            self.results[id(edit)] = (edit, self.function(edit))
        return self.results[id(edit)][1]
