"""How a sweep will be run: which rows travel together, at which level, at what cost. Deterministic; runs nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mechxai.core.errors import ConfigError
from mechxai.core.site import Site
from mechxai.engine.affected_range import affected_range, entry_layer
from mechxai.engine.execution import FUSED, HOOKED, LEVEL_NAMES, PACKED, SUFFIX, WAVE, Execution
from mechxai.engine.packing import Costs, Rows, packed, ragged
from mechxai.engine.sizes import record_bytes, row_bytes
from mechxai.engine.sweep import Sweep, run_tokens
from mechxai.engine.work import attention_flops, position_flops, wave_positions
from mechxai.model.backends.base import modules
from mechxai.model.backends.hooks import foreign_hooks
from mechxai.model.backends.memory import available_bytes
from mechxai.model.dense.lookup import dense_model_of
from mechxai.model.dense.run import DENSE_SITES
from mechxai.model.hooked_model import HookedModel

_POSITIONS_PER_WAVE = {"cpu": 2048, "cuda": 65536}
_CELLS_PER_WAVE = 8  # at least, so that the base rows of a wave weigh little
_MEMORY_SHARE = 0.6
_RECORD_SHARE = 0.5  # of the budget, for what is kept of unedited runs


@dataclass(frozen=True)
class Wave:
    """Rows (a cell on a prompt each) that share one pass.

    Attributes:
        cells: the cell of each row.
        prompts: the prompt of each row.
        start: first position that is run.
        stop: position after the last.
        starts: of each row, where they differ; likewise ``stops``.
        chunk: number of the group of prompts whose unedited runs are kept at the time.
        work: positions times layers.
    """

    cells: tuple[int, ...]
    prompts: tuple[int, ...]
    start: int
    stop: int
    chunk: int = 0
    work: float = 0.0
    starts: tuple[int, ...] = ()
    stops: tuple[int, ...] = ()

    def part(self, rows: slice) -> "Wave":
        """Some of its rows."""
        own = {name: getattr(self, name)[rows] for name in ("cells", "prompts", "starts", "stops")}
        return replace(self, **own)

    def __len__(self) -> int:
        return len(self.cells)


@dataclass(frozen=True)
class Plan:
    """The waves of a sweep and their cost.

    Attributes:
        level: highest level that model, sites, edits and metric allow; see `LEVEL_NAMES`.
        waves: in the order they run.
        chunks: prompts whose unedited runs are kept together.
        noops: cells times prompts that cannot differ from the unedited run and are not computed.
        forward_passes: what one pass per cell and prompt would cost, in forward passes of one prompt.
        work: positions through layers; ``forward_passes * width * n_layers`` without any saving.
        width: positions of the longest prompt.
        flops: floating-point operations.
        peak_bytes: estimate of the most that is held beside the model.
    """

    level: int
    waves: tuple[Wave, ...]
    chunks: tuple[slice, ...]
    n_cells: int
    n_prompts: int
    n_layers: int
    noops: int
    width: int
    work: float
    flops: float
    peak_bytes: int

    @property
    def forward_passes(self) -> int:
        """One per cell and prompt."""
        return self.n_cells * self.n_prompts

    @property
    def share(self) -> float:
        """The work, as a share of one full pass per cell and prompt."""
        return self.work / max(1, self.forward_passes * self.width * self.n_layers)

    def __str__(self) -> str:
        return (
            f"{self.n_cells:,} cells x {self.n_prompts} prompts, {self.noops:,} of them without effect, in "
            f"{len(self.waves)} waves at level {self.level} ({LEVEL_NAMES[self.level]}): {self.share:.1%} of the "
            f"{self.forward_passes:,} forward passes of one per cell, "
            f"about {self.peak_bytes / 2**20:,.0f} MiB at a time"
        )


@runtime_checkable
class Planned(Protocol):
    """A method that can say beforehand how its sweep would be run."""

    def plan(self, model: HookedModel, batch: Any, *, execution: Execution) -> Plan:
        """The plan; nothing is run."""
        ...


def plan(model: HookedModel, sweep: Sweep, execution: Execution, *, level: int | None = None) -> Plan:
    """The plan of a sweep; the same for the same sweep, model and execution (given enough memory).

    Args:
        model: the model.
        sweep: the sweep.
        execution: how to run it; ``engine`` names the level.
        level: the level, where it has been settled.
    """
    level = _level(model, sweep, execution) if level is None else level
    planning = _Planning(model, sweep, execution)
    if level <= WAVE:
        return planning.by_cells(level)
    return planning.by_rows(level)


def highest_level(model: HookedModel, sweep: Sweep) -> int:
    """The highest level that model and sweep allow.

    Rows may join a running pass (1) where no attention mask depends on the row, run their last positions only (2)
    under causal attention, and use weights laid out once (3) or plain blocks (4) where the model has such.
    """
    a = model.architecture
    padded = bool((sweep.batch.lengths < sweep.batch.n_pos).any())
    joins = a.positions in ("standard", "rotary", "none") and (a.causal or not padded)
    if not joins:
        return HOOKED
    if not a.causal or not model.backend.resumes():
        return WAVE
    if foreign_hooks(modules(model.backend)):  # functions of the user's own were made for whole passes
        return HOOKED
    if not model.backend.plain_weights():
        return SUFFIX
    plain = dense_model_of(model) is not None and all(is_fusible(site) for site in sweep.sites)
    return FUSED if plain and all(one.site.row.entry == "embed" for one in sweep.base) else PACKED


def is_fusible(site: Site) -> bool:
    """Whether plain blocks have the site."""
    return site.name in DENSE_SITES or site.row.entry == "embed"


def _level(model: HookedModel, sweep: Sweep, execution: Execution) -> int:
    highest = highest_level(model, sweep)
    if execution.engine == "auto":
        return highest
    asked = LEVEL_NAMES.index(execution.engine)
    if asked > max(highest, WAVE):
        raise ConfigError(
            f"engine={execution.engine!r} was asked of {model.name}",
            got=f"level {highest} ({LEVEL_NAMES[highest]}) is the highest for this model and batch",
            fix="use engine=auto, which takes the highest level that fits",
        )
    return asked


class _Planning:
    """What both ways of planning share."""

    def __init__(self, model: HookedModel, sweep: Sweep, execution: Execution) -> None:
        self.model, self.sweep, self.execution = model, sweep, execution
        tokens, _ = run_tokens(sweep.batch, sweep.run, sweep.metric)
        self.n_prompts, self.width = tokens.shape
        self.n_layers = model.architecture.n_layers
        self.budget = execution.budget_bytes or int(_MEMORY_SHARE * available_bytes(model.device))
        self.positions = execution.tokens_per_wave or _POSITIONS_PER_WAVE.get(model.device.type, 2048)

    def by_cells(self, level: int) -> Plan:
        """Levels 0 and 1: cells stacked on the same prompts, every position run."""
        n_prompts, per_row = self.n_prompts, row_bytes(self.model, self.sweep, self.width, level=level)
        rows = max(2, min(self.positions // self.width, self.budget // per_row))
        prompts_at_once = max(1, min(n_prompts, rows // (_CELLS_PER_WAVE + 1)))
        cells_at_once = max(1, rows // prompts_at_once - level)
        entries = [entry_layer(cell) for cell in self.sweep.cells]
        order = sorted(range(len(entries)), key=lambda index: (-entries[index], index))
        waves = []
        for start in range(0, n_prompts, prompts_at_once):
            prompts = range(start, min(start + prompts_at_once, n_prompts))
            for first in range(0, len(order), cells_at_once):
                cells = order[first : first + cells_at_once]
                spans = [
                    self.n_layers - max(0, min(self.n_layers, entries[cell])) if level else self.n_layers
                    for cell in cells
                ]
                work = 1.0 * len(prompts) * self.width * (sum(spans) + level * self.n_layers)
                pairs = [(cell, prompt) for cell in cells for prompt in prompts]
                waves.append(_wave(pairs, 0, self.width, work=work))
        return self._plan(
            level, waves, [slice(0, n_prompts)], 0, per_row * prompts_at_once * (cells_at_once + level), 0.0
        )

    def by_rows(self, level: int) -> Plan:
        """Levels 2 and up: rows run from where they first differ; those that never do are not run."""
        found = affected_range(self.sweep, self.n_layers)
        chunks = self._chunks()
        cells, prompts = np.nonzero(found.changes)
        layers = self.n_layers - np.clip(found.entry, 0, self.n_layers)
        rows = Rows(cells, prompts, found.start[cells, prompts], found.stop[cells, prompts], layers[cells])
        waves: list[Wave] = []
        peak = 0
        for number, chunk in enumerate(chunks):
            mine = rows.take(np.flatnonzero((prompts >= chunk.start) & (prompts < chunk.stop)))
            costs = self._costs(level, mine)
            parts = ragged(mine, costs) if level == FUSED else packed(mine, costs, self.n_layers) if len(mine) else []
            made = [_rows_wave(part, number, fused=level == FUSED) for part in parts]
            waves += made
            largest = max(((w.stop - w.start) * len(w) for w in made), default=0)
            per_position = row_bytes(self.model, self.sweep, self.width, level=level) / self.width
            peak = max(peak, int(largest * per_position) + self._record_bytes() * (chunk.stop - chunk.start))
        recorded = float(self.n_prompts * self.width * self.n_layers * self._runs())
        return self._plan(level, waves, chunks, len(self.sweep.cells) * self.n_prompts - len(rows), peak, recorded)

    def _costs(self, level: int, rows: Rows) -> Costs:
        widest = int((rows.stop - rows.start).max()) if len(rows) else 1
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
        """Of one prompt: what is kept of its unedited runs."""
        return self._runs() * record_bytes(self.model, self.sweep, self.width)

    def _runs(self) -> int:
        """Unedited runs that are kept: the base, and those that are patched from."""
        return 2

    def _plan(  # noqa: PLR0917 - the fields of a plan
        self, level: int, waves: Sequence[Wave], chunks: Sequence[slice], noops: int, peak: int, recorded: float
    ) -> Plan:
        a = self.model.architecture
        work = recorded + sum(wave.work for wave in waves)
        flops = work * (position_flops(a) + attention_flops(a, self.width))
        return Plan(
            level=level,
            waves=tuple(waves),
            chunks=tuple(chunks),
            n_cells=len(self.sweep.cells),
            n_prompts=self.n_prompts,
            n_layers=self.n_layers,
            noops=noops,
            width=self.width,
            work=work,
            flops=flops + self._unembedding_flops(level, waves),
            peak_bytes=int(peak),
        )

    def _unembedding_flops(self, level: int, waves: Sequence[Wave]) -> float:
        at = self.sweep.metric.positions(self.sweep.batch)
        columns = self.sweep.metric.columns(self.sweep.batch) if level >= SUFFIX else None
        vocabulary = self.model.architecture.d_vocab if columns is None else len(columns)
        read = self.width if at is None else at.shape[1]
        rows = sum(len(wave) for wave in waves) + self._runs() * self.n_prompts
        return 2.0 * rows * read * self.model.architecture.d_model * vocabulary


def _wave(pairs: Sequence[tuple[int, int]], start: int, stop: int, *, work: float) -> Wave:
    cells, prompts = zip(*pairs, strict=True)
    return Wave(cells, prompts, start, stop, 0, float(work))


def _rows_wave(rows: Rows, chunk: int, *, fused: bool) -> Wave:
    start, stop = int(rows.start.min()), int(rows.stop.max())
    own = (tuple(rows.start.tolist()), tuple(rows.stop.tolist())) if fused else ((), ())
    work = float((rows.layers * (rows.stop - rows.start if fused else stop - start)).sum())
    return Wave(tuple(rows.cell.tolist()), tuple(rows.prompt.tolist()), start, stop, chunk, work, *own)
