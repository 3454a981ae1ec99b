"""Several sweeps of a method: run in turn, planned together."""

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
        sweeps: the label beside the progress bar, and the sweep.
        execution: how to run each sweep.

    Raises:
        UnfinishedError: this process has finished its shard of every sweep and other shards are missing.
        MechXAIError: as `run_sweep`.

    Cost: see `plan_sweeps`.
    """
    outcomes: list[Outcome] = []
    unfinished: UnfinishedError | None = None
    for label, sweep in sweeps:
        try:
            outcomes.append(run_sweep(model, sweep, execution, label=label))
        except UnfinishedError as error:  # a shard computes its share of every sweep
            unfinished = error
    if unfinished is not None:
        raise unfinished
    return outcomes


def plan_sweeps(model: HookedModel, sweeps: Sequence[Sweep], execution: Execution) -> Plan:
    """One plan of all sweeps: cells, waves and work added up, with the largest memory and the lowest level."""
    plans = [plan(model, sweep, execution) for sweep in sweeps]
    return replace(
        plans[0],
        level=min(part.level for part in plans),
        waves=tuple(waves for part in plans for waves in part.waves),
        chunks=tuple(chunk for part in plans for chunk in part.chunks),
        n_cells=sum(part.n_cells for part in plans),
        noops=sum(part.noops for part in plans),
        width=max(part.width for part in plans),
        work=sum(part.work for part in plans),
        flops=sum(part.flops for part in plans),
        peak_bytes=max(part.peak_bytes for part in plans),
    )


def total_cost(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """The cost of several sweeps, added up."""
    return {key: sum(outcome.cost[key] for outcome in outcomes) for key in outcomes[0].cost}


def distinct_notes(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """The notes of several sweeps, without repetitions."""
    return tuple(dict.fromkeys(note for outcome in outcomes for note in outcome.notes))
