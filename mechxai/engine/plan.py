"""How a sweep will be run: which prompts and which cells travel together, and what it costs. Deterministic."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mechxai.core.architecture import Architecture
from mechxai.core.batch import ContrastBatch
from mechxai.engine.execution import Execution
from mechxai.engine.sweep import Cell, Sweep, run_tokens
from mechxai.model.hooked_model import HookedModel
from mechxai.model.memory import available_bytes

_TOKENS_PER_WAVE = {"cpu": 4096, "cuda": 65536}
_CELLS_PER_WAVE = 8  # at least, so that the base rows of a wave weigh little
_MEMORY_SHARE = 0.6
LEVEL_NAMES = ("hooked", "wave")


@dataclass(frozen=True)
class Wave:
    """Cells (by index) that share one pass over some prompts."""

    prompts: slice
    cells: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """The waves of a sweep and their cost.

    Attributes:
        level: highest level that model, sites and edits allow; 0 ``hooked``, 1 ``wave``.
        waves: in the order they run; cells with late entry stand together.
        forward_passes: what one pass per cell and prompt would cost, in forward passes of one prompt.
        row_layers: blocks that are run, summed over rows; ``forward_passes * n_layers`` without any saving.
        peak_bytes: estimate of the largest wave's activations.
    """

    level: int
    waves: tuple[Wave, ...]
    n_cells: int
    n_prompts: int
    n_layers: int
    forward_passes: int
    row_layers: int
    peak_bytes: int

    def __str__(self) -> str:
        share = self.row_layers / max(1, self.forward_passes * self.n_layers)
        return (
            f"{self.n_cells} cells x {self.n_prompts} prompts in {len(self.waves)} waves at level {self.level} "
            f"({LEVEL_NAMES[self.level]}): {share:.0%} of the {self.forward_passes:,} forward passes of one per cell, "
            f"about {self.peak_bytes / 2**20:,.0f} MiB at a time"
        )


@runtime_checkable
class Planned(Protocol):
    """A method that can say beforehand how its sweep would be run."""

    def plan(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution) -> Plan:
        """The plan; nothing is run."""
        ...


def plan(model: HookedModel, sweep: Sweep, execution: Execution) -> Plan:
    """The plan of a sweep; the same for the same sweep, model and execution (given enough memory)."""
    level = highest_level(model, sweep) if execution.engine == "auto" else LEVEL_NAMES.index(execution.engine)
    tokens, _ = run_tokens(sweep.batch, sweep.run, sweep.metric)
    n_prompts, width = tokens.shape
    per_row = row_bytes(model, sweep, width)
    budget = execution.budget_bytes or int(_MEMORY_SHARE * available_bytes(model.device))
    rows = (execution.tokens_per_wave or _TOKENS_PER_WAVE.get(model.device.type, 4096)) // width
    rows = max(2, min(rows, budget // per_row))
    prompts_at_once = max(1, min(n_prompts, rows // (_CELLS_PER_WAVE + 1)))
    cells_at_once = max(1, rows // prompts_at_once - level)
    order = sorted(range(len(sweep.cells)), key=lambda index: (-entry_layer(sweep.cells[index]), index))
    waves = tuple(
        Wave(slice(start, min(start + prompts_at_once, n_prompts)), tuple(order[first : first + cells_at_once]))
        for start in range(0, n_prompts, prompts_at_once)
        for first in range(0, len(order), cells_at_once)
    )
    layers = model.architecture.n_layers
    return Plan(
        level=level,
        waves=waves,
        n_cells=len(sweep.cells),
        n_prompts=n_prompts,
        n_layers=layers,
        forward_passes=len(sweep.cells) * n_prompts,
        row_layers=sum(_row_layers(sweep, wave, level=level, n_layers=layers) for wave in waves),
        peak_bytes=per_row * prompts_at_once * (cells_at_once + level),
    )


def highest_level(model: HookedModel, sweep: Sweep) -> int:
    """1 where rows may join a running pass: block inputs can be hooked and no mask depends on the row."""
    padded = bool((sweep.batch.lengths < sweep.batch.n_pos).any())
    joins = model.architecture.positions in ("standard", "rotary", "none")
    return int(joins and (model.architecture.causal or not padded))


def entry_layer(cell: Cell) -> int:
    """The layer at which a cell first differs from the base run; -1 before block 0."""
    if not cell:
        return -1
    return min(_entry(one.site.layer, one.site.row.entry) for one in cell)


def _entry(layer: int | None, entry: str) -> int:
    if layer is not None:
        return layer
    return -1 if entry == "embed" else 10**6


def _row_layers(sweep: Sweep, wave: Wave, *, level: int, n_layers: int) -> int:
    n_prompts = wave.prompts.stop - wave.prompts.start
    if level == 0:
        return n_prompts * len(wave.cells) * n_layers
    spans = [n_layers - min(n_layers, max(0, entry_layer(sweep.cells[index]))) for index in wave.cells]
    return n_prompts * (n_layers + sum(spans))


def row_bytes(model: HookedModel, sweep: Sweep, width: int) -> int:
    """Rough bytes one row of a wave needs at its widest point: a block's activations, or the logits it reads."""
    a: Architecture = model.architecture
    positions = sweep.metric.positions(sweep.batch)
    n_logits = width if positions is None else positions.shape[1]
    block = width * (8 * a.d_model + 3 * a.d_mlp) + 3 * a.n_heads * width * width
    if any(site.name == "result" for site in sweep.sites):
        block += width * a.n_heads * a.d_model
    return max(block, 3 * n_logits * a.d_vocab) * model.dtype.itemsize
