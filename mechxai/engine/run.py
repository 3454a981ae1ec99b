"""Runs a sweep: plan, check, wave after wave, each kept on disk before the next begins."""

import hashlib
import time
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.metric import check_finite
from mechxai.engine.execution import Execution
from mechxai.engine.levels import run_part
from mechxai.engine.plan import LEVEL_NAMES, Plan, Wave, plan
from mechxai.engine.progress import Bar
from mechxai.engine.self_check import Verdict, check
from mechxai.engine.sweep import Sweep
from mechxai.engine.wave_store import WaveStore
from mechxai.model.hooked_model import HookedModel


@dataclass(frozen=True)
class Outcome:
    """What a sweep gave.

    Attributes:
        values: the metric of every cell and prompt, ``[cell, batch]``, float64 on the CPU.
        level: the level that ran.
        noise_floor: what rounding alone changes; effects below it are none.
        cost: forward passes, cells computed and reused (times prompts), waves, seconds.
        notes: what a reader of the values must know.
    """

    values: Float[Tensor, "cell batch"]
    level: int
    noise_floor: float
    cost: dict[str, float]
    notes: tuple[str, ...] = ()


def run_sweep(model: HookedModel, sweep: Sweep, execution: Execution, *, what: str = "cells") -> Outcome:
    """The metric of every cell on every prompt.

    Args:
        model: the model.
        sweep: the question.
        execution: how to run it.
        what: shown beside the progress bar.

    Raises:
        SiteError, ModelSupportError, ShapeError: what cannot be done, before any forward pass.
        NumericsError: a value that is NaN or infinite; names the cell and the prompt.
        NoSpaceError: a single cell on a single prompt does not fit into the device's memory.

    Cost: see `plan`.
    """
    sweep.check(model)
    started = time.perf_counter()
    planned = plan(model, sweep, execution)
    verdict = check(model, sweep, planned.level) if planned.n_cells else Verdict(planned.level, 0.0, 0)
    if verdict.level != planned.level:
        planned = plan(model, sweep, replace(execution, engine=LEVEL_NAMES[verdict.level]))
    store = None if execution.cells is None else WaveStore(execution.cells, _key(model, sweep, planned))
    values = torch.full((planned.n_cells, planned.n_prompts), torch.nan, dtype=torch.float64)
    reused = 0
    with Bar(what, planned.n_cells * planned.n_prompts, shown=execution.progress) as bar:
        for index, wave in enumerate(planned.waves):
            size = len(wave.cells) * (wave.prompts.stop - wave.prompts.start)
            found = store.load(index) if store else None
            reused += size if found is not None else 0
            bar.advance(0)
            computed = found is None
            if found is None:
                found = run_part(model, sweep, wave.prompts, cells=wave.cells, level=planned.level).double().cpu()
                _check_values(found, sweep, wave)
                if store:
                    store.save(index, found)
            values[torch.tensor(wave.cells), wave.prompts] = found.double()
            bar.advance(size, computed=computed)
    cost = {
        "cells": float(planned.n_cells * planned.n_prompts),
        "cells_reused": float(reused),
        "waves": float(len(planned.waves)),
        "forward_passes": planned.row_layers / planned.n_layers,
        "forward_passes_one_per_cell": float(planned.forward_passes),
        "check_forward_passes": float(verdict.forward_passes),
        "seconds": time.perf_counter() - started,
    }
    notes = (f"finished cells could not be kept on disk: {store.failed}",) if store and store.failed else ()
    return Outcome(values, verdict.level, verdict.noise_floor, cost, notes)


def _check_values(values: Tensor, sweep: Sweep, wave: Wave) -> None:
    if bool(torch.isfinite(values).all()):
        return
    for index, row in zip(wave.cells, values, strict=True):
        where = " and ".join(str(one.site) for one in sweep.cells[index]) or "the base run"
        check_finite(row, f"{where} (prompts from {wave.prompts.start})")


def _key(model: HookedModel, sweep: Sweep, planned: Plan) -> str:
    info = model.info()
    parts = [
        sweep.digest(),
        planned.level,
        [(wave.prompts.start, wave.prompts.stop, wave.cells) for wave in planned.waves],
    ]
    parts += [info[name] for name in ("weight_hash", "backend", "processing", "dtype")]
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
