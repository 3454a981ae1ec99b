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

    @property
    def sites(self) -> list[Site]:
        """Every whole site that is edited."""
        return list({one.site.whole: None for cell in (self.base, *self.cells) for one in cell})


def bound(sweep: Sweep, prompts: slice, cells: list[int]) -> Job:
    """The job of these cells on these prompts. Edits that several cells share are cut once, so a source runs once."""
    cut: dict[int, Edit] = {}

    def cut_edit(edit: Edit) -> Edit:
        if id(edit) not in cut:
            cut[id(edit)] = edit.rows(prompts)
        return cut[id(edit)]

    def cut_cell(cell: Cell) -> Cell:
        return tuple(Intervention(one.site, cut_edit(one.edit)) for one in cell)

    chosen = [cut_cell(sweep.cells[index]) for index in cells]
    return Job(sweep.batch.rows(prompts), sweep.run, chosen, sweep.metric, cut_cell(sweep.base))
