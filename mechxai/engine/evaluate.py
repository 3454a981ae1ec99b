"""A planned sweep carried out, wave after wave."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mechxai.engine.chunk import Chunk
from mechxai.engine.execution import SUFFIX
from mechxai.engine.plan import Plan, Wave
from mechxai.engine.run_part import run_part
from mechxai.engine.sweep import Sweep
from mechxai.model.hooked_model import HookedModel

Compute = Callable[[], Tensor]


@dataclass(frozen=True)
class Item:
    """One thing to compute: a wave, or (when ``wave`` is None) the unedited runs of a chunk.

    Attributes:
        number: its place in the order, the same for the same plan.
        compute: gives the values: of the wave's rows, or of the runs, ``[run, prompt]``.
        work: positions times layers.
    """

    number: int
    wave: Wave | None
    compute: Compute
    work: float


@dataclass
class Values:
    """What has come of a sweep so far.

    Attributes:
        cells: the metric, ``[cell, prompt]``, float64; NaN where not yet known.
        runs: run -> metric, ``[prompt]``; filled by levels that record runs.
    """

    plan: Plan
    cells: Tensor
    runs: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def empty(cls, planned: Plan) -> "Values":
        """Nothing known yet."""
        return cls(planned, torch.full((planned.n_cells, planned.n_prompts), torch.nan, dtype=torch.float64))

    def put(self, item: Item, found: Tensor, names: tuple[str, ...]) -> None:
        """Takes the values of an item in; runs are in the order of ``names``, the base run first."""
        if item.wave is not None:
            self.cells[torch.tensor(item.wave.cells), torch.tensor(item.wave.prompts)] = found
            return
        prompts = self.plan.chunks[item.number]
        self.cells[:, prompts] = found[0]  # what no wave computes is the base run's
        for name, values in zip(names, found, strict=True):
            self.runs.setdefault(name, torch.full((self.plan.n_prompts,), torch.nan, dtype=torch.float64))
            self.runs[name][prompts] = values


def run_names(sweep: Sweep) -> tuple[str, ...]:
    """The runs whose metric a chunk's record gives: ``base``, and the unedited ones."""
    return ("base", "clean", "corrupted") if not sweep.base else ("base",)


def items(model: HookedModel, sweep: Sweep, planned: Plan) -> Iterator[Item]:
    """Everything a plan asks for, in order: of every chunk first its runs, where the level records them.

    Yields:
        Waves and runs, not yet computed.
    """
    records = planned.level >= SUFFIX
    per_chunk = planned.work - sum(wave.work for wave in planned.waves)
    waves = list(enumerate(planned.waves, start=len(planned.chunks) if records else 0))
    for number, prompts in enumerate(planned.chunks):
        chunk = Chunk(model, sweep, prompts, planned.level)
        if records:
            share = per_chunk * (prompts.stop - prompts.start) / planned.n_prompts
            yield Item(number, None, lambda chunk=chunk: _runs(chunk), share)
        for place, wave in waves:
            if wave.chunk == number:
                yield Item(place, wave, lambda chunk=chunk, wave=wave: run_part(chunk, wave), wave.work)
        chunk.forget()


def evaluated(model: HookedModel, sweep: Sweep, planned: Plan) -> Tensor:
    """The metric of every cell and prompt, nothing kept and nothing shown; for checks."""
    values = Values.empty(planned)
    for item in items(model, sweep, planned):
        values.put(item, item.compute().double().cpu(), run_names(sweep))
    return values.cells


def _runs(chunk: Chunk) -> Tensor:
    with torch.no_grad():
        values = chunk.recorded.values
    return torch.stack([values[name] for name in run_names(chunk.sweep)])
