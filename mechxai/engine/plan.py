"""The plan of a sweep: its level, its waves and their cost. Planning is deterministic and runs no forward pass."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mechxai.core.errors import ConfigError
from mechxai.engine.affected_range import NEVER, AffectedRange, affected_range, entry_layer
from mechxai.engine.execution import FUSED, HOOKED, LEVEL_NAMES, PACKED, SUFFIX, WAVE, Execution
from mechxai.engine.packing import Costs, Groups, grouped, pack_ragged, pack_windows
from mechxai.engine.sizes import record_bytes, row_bytes
from mechxai.engine.sweep import Sweep, run_tokens
from mechxai.engine.waves import CellWaves, ChunkWaves, RowWaves
from mechxai.engine.work import attention_flops, position_flops, wave_positions
from mechxai.model.backends.base import modules
from mechxai.model.backends.hooks import foreign_hooks
from mechxai.model.backends.memory import available_bytes
from mechxai.model.dense.check import equivalence_check
from mechxai.model.hooked_model import HookedModel

_POSITIONS_PER_WAVE = {"cpu": 2048, "cuda": 65536}
_CELLS_PER_WAVE = 8  # minimum, so that the base rows are a small part of a wave
_MEMORY_SHARE = 0.6
_RECORD_SHARE = 0.5  # of the budget, for the recorded unedited runs


@dataclass(frozen=True, repr=False)
class Plan:
    """The waves of a sweep and their cost.

    Attributes:
        level: highest level that model, sites, edits and metric allow; see `LEVEL_NAMES`.
        chunks: the prompts whose unedited runs are kept in memory together.
        waves: the waves of each chunk, in the order in which they run.
        n_cells: number of cells.
        n_prompts: number of prompts.
        n_layers: number of layers.
        noops: cells times prompts that cannot differ from the unedited run and are not computed.
        width: number of positions of the longest prompt.
        work: positions times layers; ``forward_passes * width * n_layers`` without any saving.
        flops: floating-point operations.
        peak_bytes: estimate of the peak memory beside the model.
    """

    level: int
    chunks: tuple[slice, ...]
    waves: tuple[ChunkWaves, ...]
    n_cells: int
    n_prompts: int
    n_layers: int
    noops: int
    width: int
    work: float
    flops: float
    peak_bytes: int

    @property
    def n_waves(self) -> int:
        """The number of waves."""
        return sum(len(waves) for waves in self.waves)

    @property
    def n_rows(self) -> int:
        """The number of rows: cells times prompts that are computed."""
        return sum(waves.n_rows for waves in self.waves)

    @property
    def digest(self) -> str:
        """A hash of how cells and prompts are divided; pieces of another division are not reused."""
        parts = (self.level, [(c.start, c.stop) for c in self.chunks], [waves.digest for waves in self.waves])
        return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()

    @property
    def forward_passes(self) -> int:
        """The number of forward passes of a single prompt that one pass per cell and prompt would take."""
        return self.n_cells * self.n_prompts

    @property
    def share(self) -> float:
        """The work as a share of one full pass per cell and prompt."""
        return self.work / max(1, self.forward_passes * self.width * self.n_layers)

    def __str__(self) -> str:
        return (
            f"{self.n_cells:,} cells x {self.n_prompts} prompts, {self.noops:,} of them without effect, in "
            f"{self.n_waves:,} waves at level {self.level} ({LEVEL_NAMES[self.level]}): {self.share:.1%} of the "
            f"{self.forward_passes:,} forward passes of one per cell, "
            f"about {self.peak_bytes / 2**20:,.0f} MiB at a time"
        )

    def __repr__(self) -> str:
        return f"<Plan: {self}>"


@runtime_checkable
class Planned(Protocol):
    """A method whose sweep can be planned before it runs."""

    def plan(self, model: HookedModel, batch: Any, *, execution: Execution) -> Plan:
        """The plan of the method's sweep; runs no forward pass."""
        ...


def plan(model: HookedModel, sweep: Sweep, execution: Execution, *, level: int | None = None) -> Plan:
    """The plan of a sweep; the same for the same sweep, model and execution (given enough memory).

    Args:
        model: the model.
        sweep: the sweep.
        execution: how to run the sweep; ``engine`` names the level.
        level: the level, if it is already decided.
    """
    level = _level(model, sweep, execution) if level is None else level
    planner = _Planner(model, sweep, execution)
    if level <= WAVE:
        return planner.by_cells(level)
    return planner.by_rows(level)


def highest_level(model: HookedModel, sweep: Sweep) -> int:
    """The highest level that model and sweep allow.

    Rows can join a running pass (level 1) if no attention mask depends on the row, run their last positions only (2)
    under causal attention, and use weights laid out once (3) or dense blocks (4) if the model has them.
    """
    a = model.architecture
    padded = bool((sweep.batch.lengths < sweep.batch.n_pos).any())
    joins = a.positions in ("standard", "rotary", "none") and (a.causal or not padded)
    if not joins and a.positions != "alibi":
        return HOOKED
    if not a.causal or not model.backend.resumes():
        return WAVE
    if foreign_hooks(modules(model.backend)):  # hooks of the user expect full passes
        return HOOKED
    if not model.backend.plain_weights():
        return SUFFIX
    check = equivalence_check(model.backend)
    longest = run_tokens(sweep.batch, sweep.run, sweep.metric)[0].shape[1]
    fusible = check.covers(longest) and all(check.computes(site) for site in sweep.sites)
    if fusible and all(intervention.site.row.entry == "embed" for intervention in sweep.base):
        return FUSED
    return PACKED if joins else HOOKED  # a pass prepares ALiBi for the rows that it starts with


def _level(model: HookedModel, sweep: Sweep, execution: Execution) -> int:
    highest = highest_level(model, sweep)
    if execution.engine == "auto":
        return highest
    level = LEVEL_NAMES.index(execution.engine)
    if level > max(highest, WAVE):
        raise ConfigError(
            f"engine={execution.engine!r} does not fit {model.name}: level {highest} ({LEVEL_NAMES[highest]}) is the"
            " highest for this model and batch",
            fix="Use engine=auto, which takes the highest level that fits",
        )
    return level


class _Planner:
    """Plans a sweep by whole cells (levels 0 and 1) or by rows (levels 2 and up)."""

    def __init__(self, model: HookedModel, sweep: Sweep, execution: Execution) -> None:
        self.model, self.sweep, self.execution = model, sweep, execution
        tokens, _ = run_tokens(sweep.batch, sweep.run, sweep.metric)
        self.n_prompts, self.width = tokens.shape
        self.n_layers = model.architecture.n_layers
        self.budget = execution.budget_bytes or int(_MEMORY_SHARE * available_bytes(model.device))
        self.positions = execution.tokens_per_wave or _POSITIONS_PER_WAVE.get(model.device.type, 2048)

    def by_cells(self, level: int) -> Plan:
        """Levels 0 and 1: cells stacked on the same prompts; every position runs."""
        n_prompts, per_row = self.n_prompts, row_bytes(self.model, self.sweep, self.width, level=level)
        rows = max(2, min(self.positions // self.width, self.budget // per_row))
        prompts_at_once = max(1, min(n_prompts, rows // (_CELLS_PER_WAVE + 1)))
        cells_at_once = max(1, rows // prompts_at_once - level)
        entries = [entry_layer(cell) for cell in self.sweep.cells]
        waves = CellWaves(
            order=sorted(range(len(entries)), key=lambda index: (-entries[index], index)),
            layers=self._layers(np.array(entries, dtype=np.int64) if level else np.zeros(len(entries), np.int64)),
            n_prompts=n_prompts,
            prompts_at_once=prompts_at_once,
            cells_at_once=cells_at_once,
            width=self.width,
            base_layers=level * self.n_layers,
        )
        peak = per_row * prompts_at_once * (cells_at_once + level)
        return self._plan(level, [waves], [slice(0, n_prompts)], peak=peak, recorded=0.0)

    def by_rows(self, level: int) -> Plan:
        """Levels 2 and up: rows run from the first position that changes; rows that never change do not run."""
        affected = affected_range(self.sweep, self.n_layers)
        layers = self._layers(affected.entry)
        chunks = self._chunks()
        per_position = row_bytes(self.model, self.sweep, self.width, level=level) / self.width
        waves: list[RowWaves] = []
        peak = 0
        for chunk in chunks:
            groups = _groups(affected, layers, chunk)
            costs = self._costs(level, groups)
            packing = pack_ragged(groups, costs) if level == FUSED else pack_windows(groups, costs, self.n_layers)
            waves.append(RowWaves(affected, layers, chunk, packing))
            recorded = self._record_bytes() * (chunk.stop - chunk.start)
            peak = max(peak, int(packing.largest * per_position) + recorded)
        recorded = float(self.n_prompts * self.width * self.n_layers * self._runs())
        return self._plan(level, waves, chunks, peak=peak, recorded=recorded)

    def _layers(self, entry: np.ndarray) -> np.ndarray:
        """The number of layers that each cell runs, ``[cell]``."""
        return self.n_layers - np.clip(entry, 0, self.n_layers)

    def _costs(self, level: int, groups: Groups) -> Costs:
        widest = int((groups.stop - groups.start).max()) if len(groups) else 1
        per_row = row_bytes(self.model, self.sweep, self.width, level=level)
        if self.sweep.metric.positions(self.sweep.batch) is not None:
            per_row = max(1, per_row * widest // self.width)
        spare = self.budget * (1 - _RECORD_SHARE)
        wave = wave_positions(self.model.architecture, self.model.device.type, fused=level == FUSED)
        return Costs(wave, max(1, int(spare // per_row)), max(widest, self.positions))

    def _chunks(self) -> list[slice]:
        at_once = max(1, int(self.budget * _RECORD_SHARE // self._record_bytes()))
        return [slice(start, min(start + at_once, self.n_prompts)) for start in range(0, self.n_prompts, at_once)]

    def _record_bytes(self) -> int:
        """Bytes of the unedited runs of one prompt."""
        return self._runs() * record_bytes(self.model, self.sweep, self.width)

    def _runs(self) -> int:
        """The number of recorded unedited runs: the base run, and the run that patches read from."""
        return 2

    def _plan(
        self, level: int, waves: Sequence[ChunkWaves], chunks: Sequence[slice], *, peak: int, recorded: float
    ) -> Plan:
        a = self.model.architecture
        work = recorded + sum(part.work for part in waves)
        n_rows = sum(part.n_rows for part in waves)
        flops = work * (position_flops(a) + attention_flops(a, self.width))
        return Plan(
            level=level,
            waves=tuple(waves),
            chunks=tuple(chunks),
            n_cells=len(self.sweep.cells),
            n_prompts=self.n_prompts,
            n_layers=self.n_layers,
            noops=len(self.sweep.cells) * self.n_prompts - n_rows,
            width=self.width,
            work=work,
            flops=flops + self._unembedding_flops(level, n_rows),
            peak_bytes=int(peak),
        )

    def _unembedding_flops(self, level: int, n_rows: int) -> float:
        at = self.sweep.metric.positions(self.sweep.batch)
        columns = self.sweep.metric.columns(self.sweep.batch) if level >= SUFFIX else None
        vocabulary = self.model.architecture.d_vocab if columns is None else len(columns)
        read = self.width if at is None else at.shape[1]
        rows = n_rows + self._runs() * self.n_prompts
        return 2.0 * rows * read * self.model.architecture.d_model * vocabulary


def _groups(affected: AffectedRange, layers: np.ndarray, chunk: slice) -> Groups:
    """How many rows of a chunk run the same positions."""
    starts, stops = affected.starts[:, chunk], affected.stops[:, chunk]
    n_kinds = len(starts)
    rows, all_layers = (np.bincount(affected.kind, weights, n_kinds) for weights in (None, layers))
    changes = starts < NEVER
    per_row = (np.broadcast_to(each[:, None], starts.shape)[changes] for each in (rows, all_layers))
    n_rows, n_layers = per_row
    return grouped(starts[changes], stops[changes], rows=n_rows, layers=n_layers)
