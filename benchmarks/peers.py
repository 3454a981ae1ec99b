"""Each contender as a function that runs a sweep and returns its time; for both classes of TransformerLens."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import torch
import transformer_lens.patching as tl_patching
from torch import Tensor

import mechxai as mx
from benchmarks.shapes import GPT2_SMALL, Prompts, Shape, prompts
from benchmarks.sweeps import ENGINES, Cell, Sweep
from benchmarks.timing import Run

_POSITIONS_AT_ONCE = 4096  # tokens per call of the hand-written batches

tl_patching.tqdm = lambda rows, **_: rows


def pair(width: int = 16, first: int = 10, n_prompts: int = 1, shape: Shape = GPT2_SMALL) -> mx.ContrastBatch:
    """Random prompts that differ at one position, as a `ContrastBatch`."""
    return as_batch(prompts(shape, width, first, n_prompts))


def as_batch(pairs: Prompts) -> mx.ContrastBatch:
    """The prompt pairs as a `ContrastBatch`."""
    return mx.ContrastBatch.from_tokens(pairs.clean, pairs.corrupted, pairs.answers, pairs.wrong)


def transformer_lens(inner: Any, shape: Shape, pairs: Prompts, *, sweep: Sweep, sample: Sequence[Cell]) -> Run:
    """Runs `transformer_lens.patching` on a sample of cells; the time is scaled to all cells, which cost the same.

    The cache of the clean run is built once and counted once.
    """
    start = time.perf_counter()
    _, cache = inner.run_with_cache(pairs.clean, names_filter=_names(sweep.site, shape.n_layers))
    cached = time.perf_counter()
    values = tl_patching.generic_activation_patch(
        inner,
        pairs.corrupted,
        cache,
        lambda logits: pairs.difference(logits[:, -1]),
        getattr(tl_patching, sweep.setter),
        sweep.site,
        index_df=pd.DataFrame(list(sample), columns=list(sweep.over)),
    )
    end = time.perf_counter()
    n_cells = len(sweep.cells(shape, pairs.width))
    seconds = (cached - start) + (end - cached) * n_cells / len(sample)
    return Run(seconds, end - start, dict(zip(sample, values.tolist(), strict=True)))


def start_at_layer(
    inner: Any, shape: Shape, pairs: Prompts, *, sweep: Sweep, layers: Sequence[int] | None = None
) -> Run:
    """A hand-written sweep: the cells of a layer as one batch, run from that layer's cached input.

    Only the last position is unembedded. A call covers at most 4,096 positions.
    """
    start = time.perf_counter()
    _, clean = inner.run_with_cache(pairs.clean, names_filter=_names(sweep.site, shape.n_layers))
    _, base = inner.run_with_cache(pairs.corrupted, names_filter=_names("resid_pre", shape.n_layers))
    at_once = max(1, _POSITIONS_AT_ONCE // pairs.corrupted.numel())
    values: dict[Cell, float] = {}
    for layer in range(shape.n_layers) if layers is None else layers:
        cells = [cell for cell in sweep.cells(shape, pairs.width) if cell[0] == layer]
        for first in range(0, len(cells), at_once):
            part = cells[first : first + at_once]
            hook = _patching(sweep, part, clean[sweep.site, layer])
            residual = inner.run_with_hooks(
                base["resid_pre", layer].repeat(len(part), 1, 1),
                fwd_hooks=[(_hook(sweep.site, layer), hook)],
                start_at_layer=layer,
                stop_at_layer=shape.n_layers,
            )
            logits = inner.unembed(inner.ln_final(residual[:, -1:]))[:, 0].unflatten(0, (len(part), len(pairs)))
            values |= {cell: float(pairs.difference(rows)) for cell, rows in zip(part, logits, strict=True)}
    seconds = time.perf_counter() - start
    return Run(seconds, seconds, values)


def ours(model: mx.HookedModel, batch: mx.ContrastBatch, sweep: Sweep, engine: str = "auto") -> Run:
    """The full method: plan, both baselines, every cell and intervals."""
    method = mx.ActivationPatching(sweep.site, sweep.over)
    start = time.perf_counter()
    result = method(model, batch, execution=mx.Execution(engine=engine))
    seconds = time.perf_counter() - start
    effects = result.data["value"].values
    values = {cell: float(effects[cell]) for cell in _indices(effects.shape)}
    return Run(seconds, seconds, values, note=f"level {int(result.data['level'])}")


def prepared(inner: Any, name: str, batch: mx.ContrastBatch) -> tuple[mx.HookedModel, float]:
    """The model for ours, and the seconds to read and lay out its weights, which happens once."""
    start = time.perf_counter()
    model = mx.wrap(inner, name=name)
    mx.ActivationPatching().plan(model, batch)
    return model, time.perf_counter() - start


def engines(model: mx.HookedModel, batch: mx.ContrastBatch, sweep: Sweep) -> tuple[str, ...]:
    """The engines of a model from level 1 on, without running any."""
    highest = mx.ActivationPatching(sweep.site, sweep.over).plan(model, batch).level
    return ENGINES[:highest]


def _patching(sweep: Sweep, cells: Sequence[Cell], source: Tensor) -> Callable[..., Tensor]:
    def patch(activation: Tensor, hook: Any) -> Tensor:
        del hook
        groups = activation.unflatten(0, (len(cells), len(source)))
        for group, cell in zip(groups, cells, strict=True):
            place = sweep.place(cell)
            group[place] = source[place]
        return activation

    return patch


def _names(site: str, n_layers: int) -> list[str]:
    return [_hook(site, layer) for layer in range(n_layers)]


def _hook(site: str, layer: int) -> str:
    return f"blocks.{layer}.attn.hook_z" if site == "z" else f"blocks.{layer}.hook_{site}"


def _indices(sizes: Sequence[int]) -> list[Cell]:
    return [tuple(index) for index in torch.cartesian_prod(*(torch.arange(size) for size in sizes)).tolist()]
