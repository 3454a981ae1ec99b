"""Several rankings of the same players judged by the same interventions, random rankings among them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError
from mechxai.core.metric import AnyMetric
from mechxai.core.result import variable
from mechxai.core.statistics import known_mean, mean_interval
from mechxai.engine.execution import Execution
from mechxai.methods.attribution._lib.base import Attribution
from mechxai.methods.attribution._lib.evaluation.curves import Curves, curves, random_scores
from mechxai.methods.attribution._lib.evaluation.measures import infidelity, soft_removal
from mechxai.methods.attribution._lib.input import AttributionInput, attribution_input
from mechxai.methods.attribution._lib.scores import Scores
from mechxai.methods.result_parts import bounded

PerRanking = Float[np.ndarray, "ranking prompt"]
# name -> (whether higher is better, what it is)
MEASURES: dict[str, tuple[bool, str]] = {
    "comprehensiveness": (True, "loss when the first players go, mean over the fractions (AOPC)"),
    "sufficiency": (False, "loss when only the first players stay, mean over the fractions (AOPC)"),
    "deletion_auc": (False, "mean score while players go, the first of the ranking first"),
    "insertion_auc": (True, "mean score while players come, the first of the ranking first"),
    "infidelity": (False, "mean squared error of sums of scores as losses of random sets of players"),
    "infidelity_scaled": (False, "the same after the best scaling, as a share of the mean squared loss"),
    "soft_comprehensiveness": (True, "normalised soft comprehensiveness (NC)"),
    "soft_sufficiency": (True, "normalised soft sufficiency (NS)"),
}
_FRACTIONS = ("infidelity_scaled", "soft_comprehensiveness", "soft_sufficiency")


@dataclass(frozen=True)
class Judging:
    """How scores are judged.

    Attributes:
        fractions: of the players, at which comprehensiveness and sufficiency are taken.
        random_draws: random rankings that stand beside every method.
        infidelity_draws: random sets of players.
        soft_draws: of the soft measures' masks; 0 leaves them out.
        seed: of all draws.
    """

    fractions: Sequence[float]
    random_draws: int
    infidelity_draws: int
    soft_draws: int
    seed: int

    def __post_init__(self) -> None:
        if not self.fractions or not all(0 < fraction <= 1 for fraction in self.fractions):
            raise ConfigError(f"fractions={self.fractions} of the players", allowed="numbers above 0, up to 1")
        if self.random_draws < 1 or self.infidelity_draws < 1 or self.soft_draws < 0:
            raise ConfigError(
                "Draws of the judging",
                got=f"random {self.random_draws}, infidelity {self.infidelity_draws}, soft {self.soft_draws}",
                allowed="1 or more random and infidelity draws, 0 or more soft ones",
            )


@dataclass(frozen=True)
class Candidate:
    """A method, its problem, what it gave, as scores of players, ``[prompt, player]``, and the seconds it took."""

    method: Attribution
    problem: AttributionInput
    scores: Scores
    players: Float[np.ndarray, "prompt player"]
    seconds: float


@dataclass(frozen=True)
class EvaluationSettings:
    """What all methods are asked: the score, the players, what stands in for those taken away by the judge."""

    metric: AnyMetric
    baseline: str
    players: str
    special: bool

    def put(self, method: Attribution) -> Attribution:
        """The method, asked about this score and these players; its own baseline stays."""
        return replace(method, metric=self.metric, players=self.players, special=self.special)  # type: ignore[type-var] # a dataclass

    def problem(self, model: Any, batch: ContrastBatch, execution: Execution) -> AttributionInput:
        """The judge's problem."""
        return attribution_input(
            model,
            batch,
            metric=self.metric,
            baseline=self.baseline,
            players=self.players,
            special=self.special,
            execution=execution,
        )


def judged(
    problem: AttributionInput, rankings: Sequence[np.ndarray], how: Judging
) -> tuple[dict[str, PerRanking], Curves]:
    """Every measure of every ranking and, last, of the random ones; and their curves.

    Args:
        problem: the judge's.
        rankings: scores of the players, ``[prompt, player]`` each.
        how: the settings.
    """
    scores = np.concatenate([np.stack(rankings), random_scores(problem, how.random_draws, how.seed)])
    found = curves(problem, scores, how.fractions)
    error, scaled = infidelity(problem, scores, draws=how.infidelity_draws, seed=how.seed)
    measures = {
        "comprehensiveness": found.comprehensiveness(how.fractions),
        "sufficiency": found.sufficiency(how.fractions),
        "deletion_auc": found.area(found.deletion),
        "insertion_auc": found.area(found.insertion),
        "infidelity": error,
        "infidelity_scaled": scaled,
    }
    if how.soft_draws:
        soft = soft_removal(problem, scores, draws=how.soft_draws, seed=how.seed)
        measures |= {"soft_comprehensiveness": soft[0], "soft_sufficiency": soft[1]}
    return measures, found


def measure_variables(measures: Mapping[str, PerRanking], n_methods: int, unit: str) -> dict[str, xr.DataArray]:
    """Every measure by method, its interval over prompts, the random rankings' and how much better than theirs it is.

    Returns:
        For each measure ``NAME``, ``NAME_low``, ``NAME_high``, ``NAME_gain`` (better than random by, positive is
        better), ``NAME_gain_low``, ``NAME_gain_high`` [method]; ``NAME_random`` []; ``NAME_per_example`` [prompt,
        method]. Intervals of gains are paired: prompts are resampled with their own random rankings.
    """
    data: dict[str, xr.DataArray] = {}
    for name, values in measures.items():
        higher, meaning = MEASURES[name]
        units = "fraction" if name in _FRACTIONS else f"{unit}^2" if name == "infidelity" else unit
        of_methods, chance = values[:n_methods].T, known_mean(values[n_methods:])  # [prompt, method], [prompt]
        gain = (of_methods - chance[:, None]) * (1 if higher else -1)
        better = "higher is better" if higher else "lower is better"
        data |= bounded(name, ("method",), of_methods, units=units, meaning=f"{meaning}; {better}")
        data |= bounded(
            f"{name}_gain", ("method",), gain, units=units, meaning=f"better in {name} than random rankings by"
        )
        data[f"{name}_random"] = variable((), known_mean(chance), units, f"{name} of random rankings")
        data[f"{name}_per_example"] = variable(("prompt", "method"), of_methods, units, meaning)
    return data


def curve_variables(found: Curves, n_methods: int, unit: str) -> dict[str, xr.DataArray]:
    """The mean curves over the share of players gone or come, ``deletion`` and ``insertion`` [method, share].

    Random rankings' are ``deletion_random`` and ``insertion_random`` [share], with intervals over prompts.
    """
    shares = np.linspace(0, 1, 21)
    data: dict[str, xr.DataArray] = {}
    for name, curve in (("deletion", found.deletion), ("insertion", found.insertion)):
        at = np.stack([_on_shares(curve[:, p], n, shares) for p, n in enumerate(found.counts)])  # [prompt, rank, share]
        meaning = f"score with that share of players {'gone' if name == 'deletion' else 'come'}"
        chance = at[:, n_methods:].mean(1)
        interval = mean_interval(chance)
        data[name] = variable(("method", "share"), at[:, :n_methods].mean(0), unit, meaning)
        data[f"{name}_random"] = variable(("share",), chance.mean(0), unit, f"{meaning}, random rankings")
        for end, values in (("low", interval.low), ("high", interval.high)):
            data[f"{name}_random_{end}"] = variable(("share",), values, unit, f"{meaning}, random rankings, {end}")
    return data


def _on_shares(curve: np.ndarray, count: int, shares: np.ndarray) -> np.ndarray:
    """A curve by count, ``[ranking, count]``, between its known points."""
    known = [k for k in range(count + 1) if not np.isnan(curve[0, k])]
    return np.stack([np.interp(shares, np.array(known) / count, row[known]) for row in curve])
