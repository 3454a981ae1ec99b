"""One wave at one level; its halves one after the other when memory runs out."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.errors import NoSpaceError
from mechxai.engine.chunk import Chunk
from mechxai.engine.execution import WAVE
from mechxai.engine.fused import run_fused
from mechxai.engine.levels import run_hooked, run_wave
from mechxai.engine.plan import Wave
from mechxai.engine.suffix import run_packed, run_suffix
from mechxai.engine.sweep_slice import SweepSlice, bound
from mechxai.model.hooked_model import HookedModel


def _by_job(level: Callable[[HookedModel, SweepSlice], Tensor]) -> Callable[[Chunk, Wave], Tensor]:
    """A level that runs every cell on every prompt, for waves that hold just that, cell by cell."""

    def run(chunk: Chunk, wave: Wave) -> Tensor:
        prompts = list(dict.fromkeys(wave.prompts))
        job = bound(chunk.sweep, torch.tensor(prompts), list(dict.fromkeys(wave.cells)))
        return level(chunk.model, job).flatten()

    return run


LEVELS: tuple[Callable[[Chunk, Wave], Tensor], ...] = (
    _by_job(run_hooked),
    _by_job(run_wave),
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
        f"One cell on one prompt of {chunk.sweep.batch.n_pos} tokens",
        got=f"out of memory on {chunk.model.device}",
        fix="shorter prompts, a smaller dtype, or another device",
    )


def _halves(wave: Wave, *, whole_cells: bool) -> tuple[Wave, Wave]:
    """Its rows in two parts; cells stay whole where the level wants every cell on every prompt of a part."""
    n_cells = len(set(wave.cells))
    per_cell = len(wave) // n_cells
    middle = n_cells // 2 * per_cell if whole_cells and n_cells > 1 else len(wave) // 2
    return wave.part(slice(0, middle)), wave.part(slice(middle, len(wave)))
