"""The work of a planned sweep: its waves and unedited runs, and the values that come of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mechxai.engine.chunk import Chunk
from mechxai.engine.execution import SUFFIX
from mechxai.engine.plan import Plan
from mechxai.engine.run_part import run_part
from mechxai.engine.sweep import Sweep
from mechxai.engine.waves import Wave
from mechxai.model.hooked_model import HookedModel

Compute = Callable[[], Tensor]


@dataclass(frozen=True)
class WorkItem:
    """A wave to compute, or (when ``wave`` is None) the unedited runs of a chunk.

    Attributes:
        number: the place in the order of the plan.
        wave: the wave, or None.
        compute: computes the values of the wave's rows, ``[row]``, or of the runs, ``[run, prompt]``.
        work: positions times layers.
    """

    number: int
    wave: Wave | None
    compute: Compute
    work: float


@dataclass
class SweepValues:
    """The values of a sweep that have been computed so far.

    Attributes:
        cells: the metric, ``[cell, prompt]``, float64; NaN where not yet computed.
        runs: run -> metric, ``[prompt]``; filled by levels that record runs.
    """

    plan: Plan
    cells: Tensor
    runs: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def empty(cls, planned: Plan) -> "SweepValues":
        """Values of a sweep of which nothing has been computed."""
        return cls(planned, torch.full((planned.n_cells, planned.n_prompts), torch.nan, dtype=torch.float64))

    def add(self, item: WorkItem, new: Tensor, names: tuple[str, ...]) -> None:
        """Adds the values of an item; those of runs are in the order of ``names``, the base run first."""
        if item.wave is not None:
            self.cells[torch.tensor(item.wave.cells), torch.tensor(item.wave.prompts)] = new
            return
        prompts = self.plan.chunks[item.number]
        self.cells[:, prompts] = new[0]  # cells that no wave computes have the value of the base run
        for name, values in zip(names, new, strict=True):
            self.runs.setdefault(name, torch.full((self.plan.n_prompts,), torch.nan, dtype=torch.float64))
            self.runs[name][prompts] = values


def run_names(sweep: Sweep) -> tuple[str, ...]:
    """The runs whose metric a chunk records: ``base``, and the unedited ones."""
    return ("base", "clean", "corrupted") if not sweep.base else ("base",)


def work_items(model: HookedModel, sweep: Sweep, planned: Plan) -> Iterator[WorkItem]:
    """The items of a plan in order: of every chunk first its unedited runs, where the level records them.

    Yields:
        Waves and runs, not yet computed.
    """
    records = planned.level >= SUFFIX
    per_prompt = (planned.work - sum(waves.work for waves in planned.waves)) / max(1, planned.n_prompts)
    place = len(planned.chunks) if records else 0
    for number, (prompts, waves) in enumerate(zip(planned.chunks, planned.waves, strict=True)):
        chunk = Chunk(model, sweep, prompts, planned.level)
        if records:
            share = per_prompt * (prompts.stop - prompts.start)
            yield WorkItem(number, None, lambda chunk=chunk: _runs(chunk), share)
        for wave in waves:
            yield WorkItem(place, wave, lambda chunk=chunk, wave=wave: run_part(chunk, wave), wave.work)
            place += 1
        chunk.release()


def evaluate_plan(model: HookedModel, sweep: Sweep, planned: Plan) -> Tensor:
    """The metric of every cell and prompt, ``[cell, prompt]``, without checkpoints and progress bar; for checks."""
    values = SweepValues.empty(planned)
    for item in work_items(model, sweep, planned):
        values.add(item, item.compute().double().cpu(), run_names(sweep))
    return values.cells


def _runs(chunk: Chunk) -> Tensor:
    with torch.no_grad():
        values = chunk.recorded.values
    return torch.stack([values[name] for name in run_names(chunk.sweep)])
