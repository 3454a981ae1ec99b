"""Several sweeps of one method: run one after the other, planned together."""

from collections.abc import Sequence
from dataclasses import replace

from mechxai.core.errors import UnfinishedError
from mechxai.engine.execution import Execution
from mechxai.engine.plan import Plan, plan
from mechxai.engine.run import Outcome, run_sweep
from mechxai.engine.sweep import Sweep
from mechxai.model.hooked_model import HookedModel


def run_sweeps(model: HookedModel, sweeps: Sequence[tuple[str, Sweep]], execution: Execution) -> list[Outcome]:
    """The outcome of each sweep.

    Args:
        model: the model.
        sweeps: what is shown beside the progress bar, and the question.
        execution: how to run each.

    Raises:
        UnfinishedError: this process's shard of every sweep is done and others are not.
        MechXAIError: as `run_sweep`.

    Cost: see `plan_sweeps`.
    """
    outcomes: list[Outcome] = []
    unfinished: UnfinishedError | None = None
    for what, sweep in sweeps:
        try:
            outcomes.append(run_sweep(model, sweep, execution, what=what))
        except UnfinishedError as error:  # a shard does its share of every sweep
            unfinished = error
    if unfinished is not None:
        raise unfinished
    return outcomes


def plan_sweeps(model: HookedModel, sweeps: Sequence[Sweep], execution: Execution) -> Plan:
    """One plan that stands for them all: their cells, waves and work summed, the most memory, the lowest level."""
    plans = [plan(model, sweep, execution) for sweep in sweeps]
    return replace(
        plans[0],
        level=min(one.level for one in plans),
        waves=tuple(wave for one in plans for wave in one.waves),
        chunks=tuple(chunk for one in plans for chunk in one.chunks),
        n_cells=sum(one.n_cells for one in plans),
        noops=sum(one.noops for one in plans),
        width=max(one.width for one in plans),
        work=sum(one.work for one in plans),
        flops=sum(one.flops for one in plans),
        peak_bytes=max(one.peak_bytes for one in plans),
    )


def summed(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """What several sweeps cost together."""
    return {key: sum(one.cost[key] for one in outcomes) for key in outcomes[0].cost}


def noted(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """Their notes, each once."""
    return tuple(dict.fromkeys(note for one in outcomes for note in one.notes))
