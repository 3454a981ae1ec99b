"""Some prompts of a sweep and what is kept of their unedited runs while the waves over them pass."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.activations import Activations
from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Edit, Patch
from mechxai.core.errors import NoSpaceError
from mechxai.core.metric import Metric
from mechxai.core.site import Site
from mechxai.engine.execution import FUSED
from mechxai.engine.row_joins import base_sites
from mechxai.engine.sources import RunSource
from mechxai.engine.sweep import Cell, Sweep, run_tokens
from mechxai.engine.sweep_slice import Mapped
from mechxai.model.backends.editing import run_hooks
from mechxai.model.backends.passes import Recording, joined, record
from mechxai.model.dense.lookup import record_dense
from mechxai.model.hooked_model import HookedModel
from mechxai.model.readout import as_float, unembedded

_POSITIONS_AT_ONCE = 4096  # of unedited runs


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some prompts of a sweep; their runs are made when first asked for, and only for levels that go on from them.

    Attributes:
        prompts: which prompts of the sweep.
        level: the level that runs the waves.
    """

    model: HookedModel
    sweep: Sweep
    prompts: slice
    level: int

    @cached_property
    def batch(self) -> ContrastBatch:
        """The prompts."""
        return self.sweep.batch.rows(self.prompts)

    def forget(self) -> None:
        """Lets go of the unedited runs, before the next prompts' are made."""
        self.__dict__.pop("recorded", None)

    @cached_property
    def recorded(self) -> "Recorded":
        """The unedited runs. Cost: one forward pass per prompt and run."""
        with torch.no_grad():
            return _Recorder(self).recorded()


@dataclass(frozen=True)
class Recorded:
    """What waves go on from.

    Attributes:
        base: the run that cells edit.
        cells: the sweep's cells, their edits cut to the prompts, patches with their values at hand.
        edits: interventions of the base run.
        values: run -> metric, ``[batch]``; ``base`` is the base run with its interventions.
    """

    base: Recording
    cells: Sequence[Cell]
    edits: Cell
    values: dict[str, Tensor]


class _Recorder:
    def __init__(self, chunk: Chunk) -> None:
        self.chunk, self.sweep, self.model = chunk, chunk.sweep, chunk.model

    def recorded(self) -> Recorded:
        """All runs, those without interventions of their own in one pass."""
        sweep = self.sweep
        wanted = self._sources()
        sites = {site: None for found in wanted.values() for site in found}
        runs = list(wanted) if sweep.base else ["clean", "corrupted"]
        plain = self._record(runs, sites if sweep.base else sites | self._beside(), ())
        given = {run: Activations(one.acts, self.chunk.batch.layout) for run, one in plain.items()}
        resolve = Mapped(lambda edit: self._resolved(edit, given))
        edits = resolve(sweep.base)
        base = self._record([sweep.run], self._beside(), edits)[sweep.run] if edits else plain[sweep.run]
        values = {run: self.metric(recording) for run, recording in plain.items()}
        values["base"] = self.metric(base) if edits else values[sweep.run]
        return Recorded(base, [resolve(cell) for cell in sweep.cells], edits, values)

    def _resolved(self, edit: Edit, given: dict[str, Activations]) -> Edit:
        if isinstance(edit, Patch) and isinstance(edit.source, RunSource):
            return Patch(given[edit.source.run])
        return edit.rows(self.chunk.prompts)

    def _sources(self) -> dict[str, list[Site]]:
        """Run -> whole sites that some patch takes from it."""
        found: dict[str, dict[Site, None]] = {}
        for cell in (self.sweep.base, *self.sweep.cells):
            for one in cell:
                if isinstance(one.edit, Patch) and isinstance(one.edit.source, RunSource):
                    found.setdefault(one.edit.source.run, {})[one.site.whole] = None
        return {run: list(sites) for run, sites in found.items()}

    def _record(self, runs: Sequence[str], sites: Iterable[Site], edits: Cell) -> dict[str, Recording]:
        """The runs, stacked along the batch, some prompts at a time; fewer when memory runs out."""
        if not runs:
            return {}
        n_prompts = len(self.chunk.batch)
        at_once = max(1, min(n_prompts, _POSITIONS_AT_ONCE // (self.chunk.batch.n_pos * len(runs))))
        behind = list(dict.fromkeys([*sites, *(one.site.whole for one in edits)]))
        while True:
            parts = [slice(first, min(first + at_once, n_prompts)) for first in range(0, n_prompts, at_once)]
            try:
                made = [self._record_part(runs, behind, edits, part=part) for part in parts]
                return {run: joined([part[run] for part in made]) for run in runs}
            except torch.cuda.OutOfMemoryError:
                if at_once == 1:
                    raise NoSpaceError(
                        f"The unedited runs of {n_prompts} prompts of {self.chunk.batch.n_pos} tokens",
                        got=f"out of memory on {self.model.device}",
                        fix="a smaller budget_bytes, so that fewer prompts are kept at a time, or another device",
                    ) from None
                at_once //= 2

    def _record_part(
        self, runs: Sequence[str], sites: Sequence[Site], edits: Cell, *, part: slice
    ) -> dict[str, Recording]:
        batch, metric = self.chunk.batch.rows(part), self.sweep.metric
        tokens = torch.cat([run_tokens(batch, run, metric)[0] for run in runs])
        width = run_tokens(self.chunk.batch, runs[0], metric)[0].shape[1]
        tokens = torch.nn.functional.pad(tokens, (0, width - tokens.shape[1]))
        at = metric.positions(batch)
        every = None if at is None else at.repeat(len(runs), 1)
        hooks = run_hooks(Mapped(lambda edit: edit.rows(part))(edits), batch.layout)
        one_pass = record_dense if self.chunk.level == FUSED else record
        made = one_pass(self.model, tokens, hooks=hooks, sites=sites, at=every)
        n = len(batch)
        return {run: made.rows(slice(i * n, (i + 1) * n)) for i, run in enumerate(runs)}

    def _beside(self) -> dict[Site, None]:
        """What rows begin from in the base run, beside its residual stream."""
        fused = self.chunk.level == FUSED
        return dict.fromkeys(base_sites(self.sweep.cells, self.model.architecture) if fused else [])

    def metric(self, recording: Recording) -> Tensor:
        """The metric of a run, ``[batch]``."""
        everyone = torch.arange(len(self.chunk.batch), device=self.model.device)
        return scored(self.model, self.sweep.metric, self.chunk.batch, final=recording.final, prompts=everyone)


def scored(
    model: HookedModel, metric: Metric, batch: ContrastBatch, *, final: Tensor, prompts: Tensor
) -> Float[Tensor, " row"]:
    """The metric of rows from their final residual streams, ``[row, k, d_model]``; only logits it reads are made."""
    rows = batch.rows(prompts)
    columns = metric.columns(batch)
    if columns is None:
        return metric.score(as_float(unembedded(model, final)), rows)
    logits = unembedded(model, final, columns)
    numbered = [_numbered(ids, columns) for ids in (rows.answers, rows.wrong)]
    return metric.score(as_float(logits), replace(rows, answers=numbered[0], wrong=numbered[1]))


def _numbered(ids: Tensor, columns: Tensor) -> Tensor:
    """The column of each token; after the last for one that the metric does not read, which keeps it another token."""
    at = torch.searchsorted(columns, ids.clamp(min=0))
    read = columns[at.clamp(max=len(columns) - 1)] == ids
    return torch.where(ids < 0, -1, torch.where(read, at, len(columns)))
