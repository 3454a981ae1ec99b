"""Faithfulness of circuits of growing size: the curve, the areas under it (CPR, CMD), and random circuits beside it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float

from mechxai.core.errors import ConfigError
from mechxai.core.result import variable
from mechxai.core.statistics import bootstrap_weights, ratio_interval

_SMALL = 1e-5  # of the metric's size: what float32 may round
_AREAS = {
    "cpr": "area under the faithfulness of growing circuits",
    "cmd": "area under the distance of faithfulness from 1; 0 is best",
}


@dataclass(frozen=True)
class FaithfulnessCurve:
    """The metric of circuits of growing size, and of random circuits.

    Attributes:
        fractions: of the edges.
        none: the metric with every edge cut.
        full: the metric with no edge cut.
        circuits: the metric of the circuit of each fraction, then of each random draw's, fraction by fraction.
    """

    fractions: Sequence[float]
    none: Float[np.ndarray, " prompt"]
    full: Float[np.ndarray, " prompt"]
    circuits: Float[np.ndarray, "circuit prompt"]

    def variables(self, unit: str) -> dict[str, xr.DataArray]:
        """The variables of a result: ratios of means over prompts, with bootstrap intervals over prompts."""
        gap, n = self.full - self.none, len(self.fractions)
        moved = self.circuits - self.none
        share = moved.mean(1) / gap.mean()
        bounds = ratio_interval(moved[:n].T, gap)
        random = share[n:].reshape(-1, n).T
        over = ("fraction",)
        meaning = "share of the metric's gap between no edge and all edges that the circuit brings"
        interval = f"{meaning}, 95 % bootstrap over prompts"
        data = {
            "faithfulness": variable(over, share[:n], "fraction", meaning),
            "faithfulness_low": variable(over, bounds.low, "fraction", f"{interval}, low"),
            "faithfulness_high": variable(over, bounds.high, "fraction", f"{interval}, high"),
            "random_faithfulness": variable(("fraction", "draw"), random, "fraction", f"{meaning}, random circuits"),
            "baseline_clean": variable((), float(self.full.mean()), unit, "metric of the whole model"),
            "baseline_none": variable((), float(self.none.mean()), unit, "metric with every edge cut"),
        }
        resampled = areas(self._resampled(moved[:n], gap), self.fractions)
        values = areas(share[:n, None], self.fractions)
        for (name, area), value, draws in zip(_AREAS.items(), values, resampled, strict=True):
            data[name] = variable((), float(value[0]), "fraction", area)
            for end, bound in zip(("low", "high"), np.percentile(draws, [2.5, 97.5]), strict=True):
                data[f"{name}_{end}"] = variable((), float(bound), "fraction", f"{area}, 95 % over prompts, {end}")
        for name, draws in zip(_AREAS, areas(random, self.fractions), strict=True):
            data[f"{name}_random"] = variable(("draw",), draws, "fraction", f"{name} of random circuits")
        return data

    def _resampled(
        self, moved: Float[np.ndarray, "fraction prompt"], gap: Float[np.ndarray, " prompt"]
    ) -> Float[np.ndarray, "fraction draw"]:
        """Faithfulness on bootstrap samples of the prompts."""
        weights = bootstrap_weights(len(gap))
        with np.errstate(invalid="ignore", divide="ignore"):
            return (weights @ moved.T / (weights @ gap)[:, None]).T


def check_gap(
    none: Float[np.ndarray, " prompt"], full: Float[np.ndarray, " prompt"], *, metric: str, reference: str
) -> None:
    """Refuses prompts on which cutting every edge leaves the metric as it is, so that faithfulness is undefined.

    Raises:
        ConfigError: the mean metric is the same.
    """
    if not abs((full - none).mean()) > _SMALL * max(1.0, float(np.abs(full).mean())):
        raise ConfigError(
            f"Faithfulness is undefined: {metric} is {full.mean():.3g} with all edges and {none.mean():.3g} with none "
            f"(reference={reference})",
            fix="Use corrupted prompts whose answer differs (task.corruption), another metric, or another reference",
        )


def areas(
    values: Float[np.ndarray, "fraction n"], fractions: Sequence[float]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The areas under faithfulness (CPR) and under its distance from 1 (CMD), by the trapezoid rule.

    Fractions begin above 0, so even a perfect circuit has a CPR a little below 1.

    Source: Mueller et al. 2025 (arXiv 2504.13151), section 3.2.
    """
    return np.trapezoid(values, fractions, axis=0), np.trapezoid(np.abs(1 - values), fractions, axis=0)
