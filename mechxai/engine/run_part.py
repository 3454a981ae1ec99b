"""Runs a wave at its level, and halves it when memory runs out."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.errors import NoSpaceError
from mechxai.engine.chunk import Chunk
from mechxai.engine.execution import WAVE
from mechxai.engine.fused import run_fused
from mechxai.engine.levels import run_hooked, run_wave
from mechxai.engine.suffix import run_packed, run_suffix
from mechxai.engine.sweep_slice import SweepSlice, slice_sweep
from mechxai.engine.waves import Wave
from mechxai.model.hooked_model import HookedModel


def _on_slice(level: Callable[[HookedModel, SweepSlice], Tensor]) -> Callable[[Chunk, Wave], Tensor]:
    """Adapts a level that runs every cell on every prompt; such waves hold their rows cell by cell."""

    def run(chunk: Chunk, wave: Wave) -> Tensor:
        prompts = list(dict.fromkeys(wave.prompts))
        part = slice_sweep(chunk.sweep, torch.tensor(prompts), list(dict.fromkeys(wave.cells)))
        return level(chunk.model, part).flatten()

    return run


LEVELS: tuple[Callable[[Chunk, Wave], Tensor], ...] = (
    _on_slice(run_hooked),
    _on_slice(run_wave),
    run_suffix,
    run_packed,
    run_fused,
)


def run_part(chunk: Chunk, wave: Wave) -> Float[Tensor, " row"]:
    """The metric of each row of a wave.

    Raises:
        NoSpaceError: one cell on one prompt does not fit.
    """
    try:
        with torch.no_grad():
            return LEVELS[chunk.level](chunk, wave)
    except torch.cuda.OutOfMemoryError:
        if chunk.model.device.type == "cuda":
            torch.cuda.empty_cache()
    if len(wave) > 1:
        return torch.cat([run_part(chunk, half) for half in _halves(wave, whole_cells=chunk.level <= WAVE)])
    raise NoSpaceError(
        f"One cell on one prompt of {chunk.sweep.batch.n_pos} tokens runs out of memory on {chunk.model.device}",
        fix="Use shorter prompts, a smaller dtype, or another device",
    )


def _halves(wave: Wave, *, whole_cells: bool) -> tuple[Wave, Wave]:
    """Two waves of half the rows; cells stay whole for levels that run every cell on every prompt of a wave."""
    n_cells = len(set(wave.cells))
    per_cell = len(wave) // n_cells
    middle = n_cells // 2 * per_cell if whole_cells and n_cells > 1 else len(wave) // 2
    return wave.part(slice(0, middle)), wave.part(slice(middle, len(wave)))
