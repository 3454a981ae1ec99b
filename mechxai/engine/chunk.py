"""A chunk: some prompts of a sweep, with the unedited runs that the waves over these prompts start from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.activations import Activations
from mechxai.core.batch import ContrastBatch
from mechxai.core.cached import cached_property
from mechxai.core.edit import Edit, Patch
from mechxai.core.errors import NoSpaceError
from mechxai.core.metric import Metric
from mechxai.core.site import Site
from mechxai.engine.execution import FUSED
from mechxai.engine.row_joins import base_sites
from mechxai.engine.sources import RunSource
from mechxai.engine.sweep import Cell, Sweep, run_tokens
from mechxai.engine.sweep_slice import EditMapping
from mechxai.model.backends.editing import run_hooks
from mechxai.model.backends.masking import attention_mask_of
from mechxai.model.backends.passes import Recording, joined, record
from mechxai.model.dense.lookup import record_dense
from mechxai.model.hooked_model import HookedModel
from mechxai.model.readout import as_float, unembedded

_POSITIONS_AT_ONCE = 4096  # of unedited runs in one forward pass


@dataclass(eq=False)
class Chunk:
    """Some prompts of a sweep. Their unedited runs are computed at first use, by the levels that start from them.

    Attributes:
        model: the model.
        sweep: the sweep.
        prompts: the prompts of the sweep that belong to the chunk.
        level: the level that runs the waves.
    """

    model: HookedModel
    sweep: Sweep
    prompts: slice
    level: int
    _recorded: "Recorded | None" = None

    @cached_property
    def batch(self) -> ContrastBatch:
        """The chunk's prompts."""
        return self.sweep.batch.rows(self.prompts)

    def release(self) -> None:
        """Frees the unedited runs, before those of the next chunk are computed."""
        self._recorded = None

    @property
    def recorded(self) -> "Recorded":
        """The unedited runs. Cost: one forward pass per prompt and run, at first use."""
        if self._recorded is None:
            with torch.no_grad():
                self._recorded = _Recorder(self).recorded()
        return self._recorded


@dataclass(frozen=True)
class Recorded:
    """The unedited runs of a chunk.

    Attributes:
        base: the run that cells edit.
        cells: the sweep's cells, with edits for the chunk's prompts and patches that hold their values.
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
        """Computes all runs; those without interventions share one pass."""
        sweep = self.sweep
        sources = self._sources()
        sites = {site: None for run_sites in sources.values() for site in run_sites}
        runs = list(sources) if sweep.base else ["clean", "corrupted"]
        unedited = self._record(runs, sites if sweep.base else sites | self._start_sites(), ())
        acts = {run: Activations(recording.acts, self.chunk.batch.layout) for run, recording in unedited.items()}
        resolve = EditMapping(lambda edit: self._resolved(edit, acts))
        edits = resolve(sweep.base)
        base = self._record([sweep.run], self._start_sites(), edits)[sweep.run] if edits else unedited[sweep.run]
        values = {run: self.metric(recording) for run, recording in unedited.items()}
        values["base"] = self.metric(base) if edits else values[sweep.run]
        return Recorded(base, [resolve(cell) for cell in sweep.cells], edits, values)

    def _resolved(self, edit: Edit, acts: dict[str, Activations]) -> Edit:
        if isinstance(edit, Patch) and isinstance(edit.source, RunSource):
            return Patch(acts[edit.source.run])
        return edit.rows(self.chunk.prompts)

    def _sources(self) -> dict[str, list[Site]]:
        """Run -> whole sites that patches read from it."""
        sources: dict[str, dict[Site, None]] = {}
        for cell in (self.sweep.base, *self.sweep.cells):
            for intervention in cell:
                if isinstance(intervention.edit, Patch) and isinstance(intervention.edit.source, RunSource):
                    sources.setdefault(intervention.edit.source.run, {})[intervention.site.whole] = None
        return {run: list(sites) for run, sites in sources.items()}

    def _record(self, runs: Sequence[str], sites: Iterable[Site], edits: Cell) -> dict[str, Recording]:
        """The runs, stacked along the batch, some prompts at a time; fewer prompts when memory runs out."""
        if not runs:
            return {}
        n_prompts = len(self.chunk.batch)
        at_once = max(1, min(n_prompts, _POSITIONS_AT_ONCE // (self.chunk.batch.n_pos * len(runs))))
        recorded_sites = list(dict.fromkeys([*sites, *(intervention.site.whole for intervention in edits)]))
        while True:
            parts = [slice(first, min(first + at_once, n_prompts)) for first in range(0, n_prompts, at_once)]
            try:
                recordings = [self._record_part(runs, recorded_sites, edits, part=part) for part in parts]
                return {run: joined([part[run] for part in recordings]) for run in runs}
            except torch.cuda.OutOfMemoryError:
                if at_once == 1:
                    raise NoSpaceError(
                        f"The unedited runs of {n_prompts} prompts of {self.chunk.batch.n_pos} tokens run out of memory"
                        f" on {self.model.device}",
                        fix="Use a smaller budget_bytes, so that fewer prompts are kept at a time, or another device",
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
        stacked_at = None if at is None else at.repeat(len(runs), 1)
        mask = attention_mask_of(self.chunk.model.backend)
        hooks = run_hooks(EditMapping(lambda edit: edit.rows(part))(edits), batch.layout, mask=mask)
        recorder = record_dense if self.chunk.level == FUSED else record
        recording = recorder(self.model, tokens, hooks=hooks, sites=sites, at=stacked_at)
        n = len(batch)
        return {run: recording.rows(slice(i * n, (i + 1) * n)) for i, run in enumerate(runs)}

    def _start_sites(self) -> dict[Site, None]:
        """Sites of the base run from which rows start, beside the residual stream."""
        fused = self.chunk.level == FUSED
        return dict.fromkeys(base_sites(self.sweep.cells, self.model.architecture) if fused else [])

    def metric(self, recording: Recording) -> Tensor:
        """The metric of a run, ``[batch]``."""
        all_prompts = torch.arange(len(self.chunk.batch), device=self.model.device)
        return metric_values(
            self.model, self.sweep.metric, self.chunk.batch, final=recording.final, prompts=all_prompts
        )


def metric_values(
    model: HookedModel, metric: Metric, batch: ContrastBatch, *, final: Tensor, prompts: Tensor
) -> Float[Tensor, " row"]:
    """The metric of rows, from their final residual streams ``[row, k, d_model]``; computes no other logits."""
    rows = batch.rows(prompts)
    columns = metric.columns(batch)
    if columns is None:
        return metric.score(as_float(unembedded(model, final)), rows)
    logits = unembedded(model, final, columns)
    answers, wrong = (_column_numbers(ids, columns) for ids in (rows.answers, rows.wrong))
    return metric.score(as_float(logits), replace(rows, answers=answers, wrong=wrong))


def _column_numbers(ids: Tensor, columns: Tensor) -> Tensor:
    """The column of each token; one past the last for tokens that the metric does not read, -1 for none."""
    at = torch.searchsorted(columns, ids.clamp(min=0))
    read = columns[at.clamp(max=len(columns) - 1)] == ids
    return torch.where(ids < 0, -1, torch.where(read, at, len(columns)))
