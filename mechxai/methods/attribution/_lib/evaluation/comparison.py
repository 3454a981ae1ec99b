"""Rankings of the same players, and random rankings, evaluated by the same deletions and insertions."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from mechxai.core.result import variable
from mechxai.core.statistics import known_mean, mean_interval
from mechxai.methods.attribution._lib.evaluation.curves import (
    PerturbationCurves,
    known_counts,
    perturbation_curves,
    random_scores,
)
from mechxai.methods.attribution._lib.evaluation.measures import infidelity, soft_faithfulness
from mechxai.methods.attribution._lib.evaluation.settings import EvaluationSettings
from mechxai.methods.attribution._lib.input import AttributionInput
from mechxai.methods.result_parts import bounded

PerRanking = Float[np.ndarray, "ranking prompt"]
# name -> (whether higher is better, meaning)
MEASURES: dict[str, tuple[bool, str]] = {
    "comprehensiveness": (True, "loss when the top players are deleted, mean over the fractions (AOPC)"),
    "sufficiency": (False, "loss when only the top players are present, mean over the fractions (AOPC)"),
    "deletion_auc": (False, "mean score while players are deleted, the top of the ranking first"),
    "insertion_auc": (True, "mean score while players are inserted, the top of the ranking first"),
    "infidelity": (False, "mean squared error of sums of scores as losses of random sets of players"),
    "infidelity_scaled": (False, "the same after the best scaling, as a share of the mean squared loss"),
    "soft_comprehensiveness": (True, "normalised soft comprehensiveness (NC)"),
    "soft_sufficiency": (True, "normalised soft sufficiency (NS)"),
}
_UNITLESS = ("infidelity_scaled", "soft_comprehensiveness", "soft_sufficiency")


def evaluate_rankings(
    inputs: AttributionInput, rankings: Sequence[np.ndarray], settings: EvaluationSettings
) -> tuple[dict[str, PerRanking], PerturbationCurves]:
    """Every measure and the curves of every ranking and, last, of the random rankings.

    Args:
        inputs: of the evaluation's deletions and insertions.
        rankings: scores of the players, ``[prompt, player]`` each.
        settings: draws and fractions.
    """
    scores = np.concatenate([np.stack(rankings), random_scores(inputs, settings.random_draws, settings.seed)])
    curves = perturbation_curves(inputs, scores, settings.fractions)
    error, scaled_error = infidelity(inputs, scores, draws=settings.infidelity_draws, seed=settings.seed)
    measures = {
        "comprehensiveness": curves.comprehensiveness(settings.fractions),
        "sufficiency": curves.sufficiency(settings.fractions),
        "deletion_auc": curves.area(curves.deletion),
        "insertion_auc": curves.area(curves.insertion),
        "infidelity": error,
        "infidelity_scaled": scaled_error,
    }
    if settings.soft_draws:
        soft = soft_faithfulness(inputs, scores, draws=settings.soft_draws, seed=settings.seed)
        measures |= {"soft_comprehensiveness": soft[0], "soft_sufficiency": soft[1]}
    return measures, curves


def measure_variables(measures: Mapping[str, PerRanking], n_methods: int, unit: str) -> dict[str, xr.DataArray]:
    """Every measure by method with its interval over prompts, its value for random rankings, and the gain over them.

    Returns:
        For each measure ``NAME``, ``NAME_low``, ``NAME_high``, ``NAME_gain`` (better than random by, positive is
        better), ``NAME_gain_low``, ``NAME_gain_high`` [method]; ``NAME_random`` []; ``NAME_per_example`` [prompt,
        method]. Intervals of gains are paired: prompts are resampled with their own random rankings.
    """
    data: dict[str, xr.DataArray] = {}
    for name, values in measures.items():
        higher, meaning = MEASURES[name]
        units = "fraction" if name in _UNITLESS else f"{unit}^2" if name == "infidelity" else unit
        by_method, chance = values[:n_methods].T, known_mean(values[n_methods:])  # [prompt, method], [prompt]
        gain = (by_method - chance[:, None]) * (1 if higher else -1)
        better = "higher is better" if higher else "lower is better"
        data |= bounded(name, ("method",), by_method, units=units, meaning=f"{meaning}; {better}")
        data |= bounded(
            f"{name}_gain", ("method",), gain, units=units, meaning=f"better in {name} than random rankings by"
        )
        data[f"{name}_random"] = variable((), known_mean(chance), units, f"{name} of random rankings")
        data[f"{name}_per_example"] = variable(("prompt", "method"), by_method, units, meaning)
    return data


def curve_variables(curves: PerturbationCurves, n_methods: int, unit: str) -> dict[str, xr.DataArray]:
    """The mean curves over the share of players deleted or inserted, ``deletion`` and ``insertion`` [method, share].

    Random rankings' are ``deletion_random`` and ``insertion_random`` [share], with intervals over prompts.
    """
    shares = np.linspace(0, 1, 21)
    data: dict[str, xr.DataArray] = {}
    for name, curve in (("deletion", curves.deletion), ("insertion", curves.insertion)):
        rows = [_on_shares(curve[:, prompt], count, shares) for prompt, count in enumerate(curves.counts)]
        values = np.stack(rows)  # [prompt, ranking, share]
        meaning = f"score with that share of players {'deleted' if name == 'deletion' else 'inserted'}"
        chance = values[:, n_methods:].mean(1)
        interval = mean_interval(chance)
        data[name] = variable(("method", "share"), values[:, :n_methods].mean(0), unit, meaning)
        data[f"{name}_random"] = variable(("share",), chance.mean(0), unit, f"{meaning}, random rankings")
        for end, bound in (("low", interval.low), ("high", interval.high)):
            data[f"{name}_random_{end}"] = variable(("share",), bound, unit, f"{meaning}, random rankings, {end}")
    return data


def _on_shares(curve: np.ndarray, count: int, shares: np.ndarray) -> np.ndarray:
    """A prompt's curves by count, ``[ranking, count]``, interpolated at shares of its players."""
    known = known_counts(curve, count)
    return np.stack([np.interp(shares, np.array(known) / count, row[known]) for row in curve])
