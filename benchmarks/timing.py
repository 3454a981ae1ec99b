"""Contenders timed in rotation, so that the load of the machine affects all of them alike."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

LONG = 20.0  # total seconds after which a contender does not run again


@dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
        seconds: time of the whole sweep, scaled if only some cells ran.
        spent: elapsed time.
        values: cell -> mean metric over the prompts, for the cells that ran.
        note: a remark for the reader.
    """

    seconds: float
    spent: float
    values: Mapping[tuple[int, ...], float] = field(default_factory=dict)
    note: str = ""


def interleaved(
    contenders: Mapping[str, Callable[[], Run]], repeats: int, *, long: float = LONG
) -> dict[str, list[Run]]:
    """Runs the contenders in rotation for ``repeats`` rounds; no further run after ``long`` seconds in total."""
    runs: dict[str, list[Run]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, contender in contenders.items():
            if sum(run.spent for run in runs[name]) <= long:
                runs[name].append(contender())
    return runs


def median(runs: list[Run]) -> float:
    """The median of the seconds."""
    return statistics.median(run.seconds for run in runs)


def largest_difference(runs: list[Run], reference: list[Run]) -> float:
    """The largest difference from the values of another contender, over the cells of both."""
    right = {cell: value for run in reference for cell, value in run.values.items()}
    return max(abs(value - right[cell]) for run in runs for cell, value in run.values.items() if cell in right)


def digits(number: float, n: int = 4) -> float:
    """A number rounded to its significant digits."""
    return float(f"{number:.{n}g}")
