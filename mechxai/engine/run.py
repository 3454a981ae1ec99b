"""Runs a sweep: plan it, check the level, then compute wave after wave, saving each before the next begins."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.errors import UnfinishedError
from mechxai.core.metric import check_finite
from mechxai.core.work_clock import add_earlier_work, work_seconds
from mechxai.engine.checkpoint import TENSORS, CheckpointStore
from mechxai.engine.evaluate import SweepValues, WorkItem, run_names, work_items
from mechxai.engine.execution import Execution
from mechxai.engine.plan import Plan, plan
from mechxai.engine.progress import ProgressBar
from mechxai.engine.self_check import CheckedLevel, self_check
from mechxai.engine.sweep import Sweep
from mechxai.model.hooked_model import HookedModel

_VALUES, _SECONDS = "values", "seconds"  # of a wave's file


@dataclass(frozen=True)
class Outcome:
    """The values of a sweep, and what they cost.

    Attributes:
        values: the metric of every cell and prompt, ``[cell, batch]``, float64 on the CPU.
        level: the level that ran.
        noise_floor: the largest difference that rounding alone makes; smaller effects are indistinguishable from none.
        cost: forward passes; cells computed, reused and without effect (each times prompts); waves; seconds.
        notes: remarks that a reader of the values needs.
        runs: run -> metric, ``[batch]``, of the unedited runs that the sweep computed anyway.
    """

    values: Float[Tensor, "cell batch"]
    level: int
    noise_floor: float
    cost: dict[str, float]
    notes: tuple[str, ...] = ()
    runs: Mapping[str, Tensor] = field(default_factory=dict)


def run_sweep(model: HookedModel, sweep: Sweep, execution: Execution, *, label: str = "cells") -> Outcome:
    """The metric of every cell on every prompt.

    Args:
        model: the model.
        sweep: base run, cells and metric.
        execution: how to run the sweep.
        label: shown beside the progress bar.

    Raises:
        SiteError, ModelSupportError, ShapeError: the model or the metric cannot do this; raised before any forward
            pass.
        NumericsError: a value is NaN or infinite; the message names the cell and the prompt.
        NoSpaceError: a single cell on a single prompt does not fit into the device's memory.
        UnfinishedError: this process has finished its shard and other shards are missing.

    Cost: see `plan`.
    """
    sweep.check(model)
    started = work_seconds()
    planned = plan(model, sweep, execution)
    checked = self_check(model, sweep, planned) if planned.n_cells else CheckedLevel(planned.level, 0.0, 0)
    if checked.level != planned.level:
        planned = plan(model, sweep, execution, level=checked.level)
    key = "" if execution.cells is None else _key(model, sweep, planned)
    checkpoints = CheckpointStore(execution.cells, key, TENSORS)
    values, reused, missing = SweepValues.empty(planned), 0, 0
    with ProgressBar(label, planned, shown=execution.progress) as bar:
        for item in work_items(model, sweep, planned):
            loaded = checkpoints.load(item.number)
            size = len(item.wave) if item.wave is not None else 0
            reused += size if loaded is not None else 0
            bar.advance(0, 0.0)
            if loaded is None and not execution.takes(item.number):
                missing += 1
                continue
            computing = work_seconds()
            new = item.compute().double().cpu() if loaded is None else loaded[_VALUES].double()
            if loaded is None:
                _check_values(new, sweep, item)
                seconds = torch.tensor(work_seconds() - computing, dtype=torch.float64)
                checkpoints.save(item.number, {_VALUES: new, _SECONDS: seconds})
            else:
                add_earlier_work(float(loaded[_SECONDS]))
            values.add(item, new, run_names(sweep))
            bar.advance(size, item.work, computed=loaded is None)
    if missing and execution.shard is not None:
        raise UnfinishedError(
            f"Shard {execution.shard[0]}/{execution.shard[1]} of {label} is done; {missing} waves are left to other"
            " shards",
            fix="Run once more without shard when they are done: it loads their waves",
        )
    cost = {
        "cells": float(planned.n_cells * planned.n_prompts),
        "cells_reused": float(reused),
        "cells_without_effect": float(planned.noops),
        "waves": float(planned.n_waves),
        "forward_passes": planned.work / (planned.n_layers * planned.width),
        "forward_passes_one_per_cell": float(planned.forward_passes),
        "check_forward_passes": float(checked.forward_passes),
        "seconds": work_seconds() - started,
    }
    notes = (f"finished cells could not be kept on disk: {checkpoints.failed}",) if checkpoints.failed else ()
    return Outcome(values.cells, checked.level, checked.noise_floor, cost, notes, values.runs)


def _check_values(values: Tensor, sweep: Sweep, item: WorkItem) -> None:
    if bool(torch.isfinite(values).all()):
        return
    if item.wave is None:
        check_finite(values.T, "the unedited runs")
        return
    for cell, prompt, value in zip(item.wave.cells, item.wave.prompts, values, strict=True):
        where = " and ".join(str(intervention.site) for intervention in sweep.cells[cell]) or "the base run"
        check_finite(value[None], where, first_prompt=prompt)


def _key(model: HookedModel, sweep: Sweep, planned: Plan) -> str:
    parts = [sweep.digest(), planned.digest, model.identity]
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
