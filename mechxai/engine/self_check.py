"""A level is trusted once it has given the oracle's values on this model; else the next lower one is used."""

import logging
import random
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mechxai.core.edit import Edit, Patch
from mechxai.engine.evaluate import evaluated
from mechxai.engine.execution import HOOKED, LEVEL_NAMES, SUFFIX, Execution
from mechxai.engine.plan import Plan, plan
from mechxai.engine.sources import RunSource
from mechxai.engine.sweep import Sweep
from mechxai.engine.sweep_slice import Mapped
from mechxai.model.hooked_model import HookedModel

_log = logging.getLogger("mechxai.engine")
_N_CELLS = 8
_SLACK = 4.0  # times the oracle's own spread at two batch sizes
_EPS = {torch.float32: 32.0, torch.float64: 32.0}  # units in the last place that reordering sums may cost
_EPS_HALF = 4.0  # likewise in half precision
# What a model that a level does not fit may raise from inside; its own floor raises nothing else.
_MISFITS = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, NotImplementedError)


@dataclass(frozen=True)
class Verdict:
    """What the check found.

    Attributes:
        level: the highest level that gave the oracle's values.
        noise_floor: largest difference rounding alone makes: the oracle at two batch sizes, and two cells that
            change nothing beside each other.
        forward_passes: what the check cost.
    """

    level: int
    noise_floor: float
    forward_passes: int


_trusted: "weakref.WeakKeyDictionary[HookedModel, dict[tuple[object, ...], Verdict]]" = weakref.WeakKeyDictionary()


def check(model: HookedModel, sweep: Sweep, planned: Plan) -> Verdict:
    """The level to use and the noise floor; remembered per model, sites, metric and how the prompts lie."""
    key = (_kinds(sweep), _lie(sweep), sweep.metric, sweep.run, planned.level)
    known = _trusted.setdefault(model, {})
    if key not in known:
        known[key] = _check(model, sweep, planned)
    return known[key]


def _kinds(sweep: Sweep) -> tuple[object, ...]:
    """What decides which code of a level runs: sites, edits, whether at one position, head or neuron."""
    found = {
        (one.site.name, type(one.edit).__name__, one.site.pos is None, one.site.head is None, one.site.neuron is None)
        for cell in (sweep.base, *sweep.cells)
        for one in cell
    }
    return tuple(sorted(found))


def _lie(sweep: Sweep) -> tuple[bool, ...]:
    """How the prompts lie: alone, padded, with positions after the answer's. Rows begin and end accordingly."""
    batch = sweep.batch
    padded = bool((batch.lengths < batch.n_pos).any())
    return len(batch) > 1, padded, bool((batch.answer_pos < batch.lengths - 1).any())


def _check(model: HookedModel, sweep: Sweep, planned: Plan) -> Verdict:
    prompts = _prompts(sweep)
    sample = _sample(sweep, _chosen(sweep, planned, prompts), prompts)
    n_prompts, n_cells = len(prompts), len(sample.cells)
    every = range(n_cells)
    together = _oracle(model, sample, every)
    parts = [_oracle(model, sample, part) for part in (every[: n_cells // 2], every[n_cells // 2 :])]
    spread = float((together - torch.cat(parts)).abs().max())
    passes = 2 * n_prompts * n_cells
    rounding = _EPS.get(model.dtype, _EPS_HALF) * torch.finfo(model.dtype).eps
    tolerance = _SLACK * spread + rounding * max(1.0, _size(model, sample), float(together.abs().max()))
    known = bool(torch.isfinite(together).all())
    level = planned.level if known else HOOKED  # what is no number is reported where it is computed
    while level > HOOKED:
        error = _error(model, sample, together, level=level)
        passes += n_prompts * (1 + n_cells)
        if isinstance(error, float) and error <= tolerance:
            break
        said = f"differs from level 0 by {error:.2g} (allowed {tolerance:.2g})" if isinstance(error, float) else error
        _log.warning("level %d (%s) %s on %s; using level %d", level, LEVEL_NAMES[level], said, model.name, level - 1)
        level -= 1
    floor = max(spread, float((together[-1] - together[-2]).abs().max()))
    return Verdict(level, floor, passes)


def _size(model: HookedModel, sample: Sweep) -> float:
    """The size of the logits that the metric comes from, whose rounding it inherits however small it is itself."""
    batch = sample.batch.rows(slice(0, 1))
    with torch.no_grad():
        return float(
            model.logits(batch.tokens(sample.run), lengths=batch.lengths, at=batch.answer_pos[:, None]).abs().max()
        )


def _prompts(sweep: Sweep) -> list[int]:
    """The longest and the shortest, so that padding is seen where there is any."""
    lengths = sweep.batch.lengths.tolist()
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    return sorted({order[0], order[-1]})


def _chosen(sweep: Sweep, planned: Plan, prompts: Sequence[int]) -> list[int]:
    """Cells to look at: at random, half of them from those that the plan computes."""
    draw = random.Random(0)
    n_cells = len(sweep.cells)
    computed = sorted(
        {
            cell
            for wave in planned.waves
            for cell, prompt in zip(wave.cells, wave.prompts, strict=True)
            if prompt in prompts
        }
    )
    chosen = draw.sample(computed, min(_N_CELLS // 2, len(computed)))
    rest = sorted(set(range(n_cells)) - set(chosen))
    return chosen + draw.sample(rest, min(_N_CELLS - len(chosen), len(rest)))


def _sample(sweep: Sweep, cells: Sequence[int], prompts: Sequence[int]) -> Sweep:
    """These cells, and two that change nothing, on these prompts."""
    rows = torch.tensor(prompts, device=sweep.batch.clean.device)
    batch = sweep.batch.rows(rows)

    def cut(edit: Edit) -> Edit:
        if isinstance(edit, Patch) and isinstance(edit.source, RunSource):  # for the level to record, as it would
            same = edit.source.batch is sweep.batch
            return Patch(replace(edit.source, batch=batch if same else edit.source.batch.rows(rows)))
        return edit.rows(rows)

    mapped = Mapped(cut)
    made = [*(mapped(sweep.cells[index]) for index in cells), (), ()]
    return replace(sweep, batch=batch, cells=made, base=mapped(sweep.base))


def _oracle(model: HookedModel, sample: Sweep, cells: range) -> Tensor:
    return _values(model, replace(sample, cells=[sample.cells[index] for index in cells]), HOOKED)


def _error(model: HookedModel, sample: Sweep, right: Tensor, *, level: int) -> float | str:
    """The largest difference from the oracle, or why the level could not be run."""
    try:
        found = _values(model, sample, level)
    except _MISFITS as error:
        if level < SUFFIX:
            raise
        reason = str(error).splitlines()[0] if str(error) else ""
        return f"failed ({type(error).__name__}: {reason})"
    difference = float((found - right).abs().max())
    return difference if difference == difference else float("inf")  # NaN is no agreement


def _values(model: HookedModel, sample: Sweep, level: int) -> Tensor:
    together = Execution(tokens_per_wave=len(sample.cells) * sample.batch.n_pos * 2 * len(sample.batch))
    return evaluated(model, sample, plan(model, sample, together, level=level))
