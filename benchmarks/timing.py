"""Contenders timed turn by turn, so that what else the machine does falls on all of them alike."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

LONG = 20.0  # seconds after which a contender is not run again


@dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
        seconds: for the whole sweep, scaled where only some cells were run.
        spent: seconds that it really took.
        values: cell -> mean metric over the prompts, of the cells that were looked at.
        note: what a reader must know.
    """

    seconds: float
    spent: float
    values: Mapping[tuple[int, ...], float] = field(default_factory=dict)
    note: str = ""


def interleaved(
    contenders: Mapping[str, Callable[[], Run]], repeats: int, *, long: float = LONG
) -> dict[str, list[Run]]:
    """Runs each in turn, ``repeats`` rounds; one that has taken more than ``long`` seconds in all is not run again."""
    runs: dict[str, list[Run]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, contender in contenders.items():
            if sum(run.spent for run in runs[name]) <= long:
                runs[name].append(contender())
    return runs


def median(runs: list[Run]) -> float:
    """Of the seconds."""
    return statistics.median(run.seconds for run in runs)


def largest_difference(runs: list[Run], reference: list[Run]) -> float:
    """From the values of another contender, over the cells that both have."""
    right = {cell: value for run in reference for cell, value in run.values.items()}
    return max(abs(value - right[cell]) for run in runs for cell, value in run.values.items() if cell in right)


def digits(number: float, n: int = 4) -> float:
    """Rounded to as many digits as mean something."""
    return float(f"{number:.{n}g}")
