"""A sweep cut to some prompts and cells: every edit gets the values of just these prompts."""

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
    """Some cells on some prompts, edits already cut to those prompts."""

    batch: ContrastBatch
    run: str
    cells: Sequence[Cell]
    metric: Metric
    base: Cell = ()

    def rows(self, chosen: slice) -> "SweepSlice":
        """The job of some of its prompts."""
        cut = Mapped(lambda edit: edit.rows(chosen))
        return SweepSlice(
            self.batch.rows(chosen), self.run, [cut(cell) for cell in self.cells], self.metric, cut(self.base)
        )

    def only(self, cells: Sequence[int]) -> "SweepSlice":
        """The job of some of its cells."""
        return SweepSlice(self.batch, self.run, [self.cells[index] for index in cells], self.metric, self.base)

    @property
    def sites(self) -> list[Site]:
        """Every whole site that is edited."""
        return list({one.site.whole: None for cell in (self.base, *self.cells) for one in cell})


def bound(sweep: Sweep, prompts: Rows, cells: Sequence[int]) -> SweepSlice:
    """The job of these cells on these prompts."""
    cut = Mapped(lambda edit: edit.rows(prompts))
    chosen = [cut(sweep.cells[index]) for index in cells]
    return SweepSlice(sweep.batch.rows(prompts), sweep.run, chosen, sweep.metric, cut(sweep.base))


@dataclass(frozen=True)
class Mapped:
    """Cells with every edit changed by a function, once per edit, so that what several cells share stays shared."""

    function: Callable[[Edit], Edit]
    known: dict[int, tuple[Edit, Edit]] = field(default_factory=dict)

    def __call__(self, cell: Cell) -> Cell:
        """The cell with its edits changed."""
        return tuple(Intervention(one.site, self.edit(one.edit)) for one in cell)

    def edit(self, edit: Edit) -> Edit:
        """The changed edit. The old one is kept beside it, so that its id stays taken."""
        if id(edit) not in self.known:
            self.known[id(edit)] = (edit, self.function(edit))
        return self.known[id(edit)][1]
