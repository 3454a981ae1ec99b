"""A level is trusted once it has given the oracle's values on this model; else the next lower one is used."""

import logging
import random
import weakref
from dataclasses import dataclass, replace

import torch

from mechxai.engine.levels import run_part
from mechxai.engine.sweep import Sweep
from mechxai.model.hooked_model import HookedModel

_log = logging.getLogger("mechxai.engine")
_N_CELLS = 8
_N_PROMPTS = 2
_SLACK = 4.0  # times the oracle's own spread at two batch sizes
_EPS = 32.0  # units in the last place that any reordering of sums may cost


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


def check(model: HookedModel, sweep: Sweep, level: int) -> Verdict:
    """The level to use and the noise floor; remembered per model, sites and metric."""
    kinds = tuple(sorted({(one.site.name, type(one.edit).__name__) for cell in sweep.cells for one in cell}))
    key = (kinds, sweep.metric, sweep.run, level)
    known = _trusted.setdefault(model, {})
    if key not in known:
        known[key] = _check(model, sweep, level)
    return known[key]


def _check(model: HookedModel, sweep: Sweep, level: int) -> Verdict:
    chosen = random.Random(0).sample(range(len(sweep.cells)), min(_N_CELLS, len(sweep.cells)))
    prompts = slice(0, min(_N_PROMPTS, len(sweep.batch)))
    n_prompts = prompts.stop
    # the sample, and two cells that change nothing
    sample = replace(sweep, cells=[*(sweep.cells[index] for index in chosen), (), ()])
    every = range(len(sample.cells))
    together = run_part(model, sample, prompts, cells=every, level=0)
    alone = torch.cat([run_part(model, sample, prompts, cells=[cell], level=0) for cell in every])
    spread = float((together - alone).abs().max())
    passes = 2 * n_prompts * len(every)
    tolerance = _SLACK * spread + _EPS * torch.finfo(model.dtype).eps * float(together.abs().max().clamp(min=1.0))
    while level > 0:
        error = float((run_part(model, sample, prompts, cells=every, level=level) - together).abs().max())
        passes += n_prompts * (1 + len(every))
        if error <= tolerance:
            break
        _log.warning(
            "level %d differs from level 0 by %.2g (allowed %.2g) on %s; using level %d",
            level,
            error,
            tolerance,
            model.name,
            level - 1,
        )
        level -= 1
    floor = max(spread, float((together[-1] - together[-2]).abs().max()))
    return Verdict(level, floor, passes)
