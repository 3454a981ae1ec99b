"""Runs a sweep: plan, check, wave after wave, each kept on disk before the next begins."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.errors import UnfinishedError
from mechxai.core.metric import check_finite
from mechxai.engine.checkpoint import WaveStore
from mechxai.engine.evaluate import Item, Values, items, run_names
from mechxai.engine.execution import Execution
from mechxai.engine.plan import Plan, plan
from mechxai.engine.progress import Bar
from mechxai.engine.self_check import Verdict, check
from mechxai.engine.sweep import Sweep
from mechxai.model.hooked_model import HookedModel


@dataclass(frozen=True)
class Outcome:
    """What a sweep gave.

    Attributes:
        values: the metric of every cell and prompt, ``[cell, batch]``, float64 on the CPU.
        level: the level that ran.
        noise_floor: what rounding alone changes; effects below it are none.
        cost: forward passes, cells computed, reused and without effect (times prompts), waves, seconds.
        notes: what a reader of the values must know.
        runs: run -> metric, ``[batch]``, of the unedited runs that were made on the way.
    """

    values: Float[Tensor, "cell batch"]
    level: int
    noise_floor: float
    cost: dict[str, float]
    notes: tuple[str, ...] = ()
    runs: Mapping[str, Tensor] = field(default_factory=dict)


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
        UnfinishedError: this process's shard is done and others are not.

    Cost: see `plan`.
    """
    sweep.check(model)
    started = time.perf_counter()
    planned = plan(model, sweep, execution)
    verdict = check(model, sweep, planned) if planned.n_cells else Verdict(planned.level, 0.0, 0)
    if verdict.level != planned.level:
        planned = plan(model, sweep, execution, level=verdict.level)
    store = None if execution.cells is None else WaveStore(execution.cells, _key(model, sweep, planned))
    values, reused, missing = Values.empty(planned), 0, 0
    with Bar(what, planned, shown=execution.progress) as bar:
        for item in items(model, sweep, planned):
            found = store.load(item.number) if store else None
            size = len(item.wave) if item.wave is not None else 0
            reused += size if found is not None else 0
            bar.advance(0, 0.0)
            computed = found is None
            if computed and not execution.takes(item.number):
                missing += 1
                continue
            if found is None:
                found = item.compute().double().cpu()
                _check_values(found, sweep, item)
                if store:
                    store.save(item.number, found)
            values.put(item, found.double(), run_names(sweep))
            bar.advance(size, item.work, computed=computed)
    if missing and execution.shard is not None:
        raise UnfinishedError(
            f"Shard {execution.shard[0]}/{execution.shard[1]} of {what} is done",
            got=f"{missing} waves are left to other shards",
            fix="run once more without shard when they are done; it finds their waves",
        )
    cost = {
        "cells": float(planned.n_cells * planned.n_prompts),
        "cells_reused": float(reused),
        "cells_without_effect": float(planned.noops),
        "waves": float(len(planned.waves)),
        "forward_passes": planned.work / (planned.n_layers * planned.width),
        "forward_passes_one_per_cell": float(planned.forward_passes),
        "check_forward_passes": float(verdict.forward_passes),
        "seconds": time.perf_counter() - started,
    }
    notes = (f"finished cells could not be kept on disk: {store.failed}",) if store and store.failed else ()
    return Outcome(values.cells, verdict.level, verdict.noise_floor, cost, notes, values.runs)


def _check_values(values: Tensor, sweep: Sweep, item: Item) -> None:
    if bool(torch.isfinite(values).all()):
        return
    if item.wave is None:
        check_finite(values.T, "the unedited runs")
        return
    for cell, prompt, value in zip(item.wave.cells, item.wave.prompts, values, strict=True):
        where = " and ".join(str(one.site) for one in sweep.cells[cell]) or "the base run"
        check_finite(value[None], where, first_prompt=prompt)


def _key(model: HookedModel, sweep: Sweep, planned: Plan) -> str:
    info = model.info()
    parts = [
        sweep.digest(),
        planned.level,
        [(chunk.start, chunk.stop) for chunk in planned.chunks],
        [(wave.cells, wave.prompts, wave.start, wave.stop) for wave in planned.waves],
    ]
    parts += [info[name] for name in ("weight_hash", "backend", "processing", "dtype")]
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
