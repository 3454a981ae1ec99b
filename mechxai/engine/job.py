"""A sweep cut to some prompts and cells: every edit gets the values of just these prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Edit, Intervention
from mechxai.core.metric import Metric
from mechxai.core.site import Site
from mechxai.engine.sweep import Cell, Sweep


@dataclass(frozen=True)
class Job:
    """Some cells on some prompts, edits already cut to those prompts."""

    batch: ContrastBatch
    run: str
    cells: Sequence[Cell]
    metric: Metric
    base: Cell = ()

    def rows(self, chosen: slice) -> "Job":
        """The job of some of its prompts."""
        cut = _Cutter(chosen)
        return Job(self.batch.rows(chosen), self.run, [cut(cell) for cell in self.cells], self.metric, cut(self.base))

    def only(self, cells: Sequence[int]) -> "Job":
        """The job of some of its cells."""
        return Job(self.batch, self.run, [self.cells[index] for index in cells], self.metric, self.base)

    @property
    def sites(self) -> list[Site]:
        """Every whole site that is edited."""
        return list({one.site.whole: None for cell in (self.base, *self.cells) for one in cell})


def bound(sweep: Sweep, prompts: slice, cells: list[int]) -> Job:
    """The job of these cells on these prompts."""
    cut = _Cutter(prompts)
    chosen = [cut(sweep.cells[index]) for index in cells]
    return Job(sweep.batch.rows(prompts), sweep.run, chosen, sweep.metric, cut(sweep.base))


class _Cutter:
    """Cuts cells to some prompts; an edit that several cells share is cut once, so that its source runs once."""

    def __init__(self, prompts: slice) -> None:
        self._prompts = prompts
        self._cut: dict[int, Edit] = {}

    def __call__(self, cell: Cell) -> Cell:
        return tuple(Intervention(one.site, self._edit(one.edit)) for one in cell)

    def _edit(self, edit: Edit) -> Edit:
        if id(edit) not in self._cut:
            self._cut[id(edit)] = edit.rows(self._prompts)
        return self._cut[id(edit)]
