"""How faithful circuits of growing size are: the curve, the areas under it, chance, and a known circuit beside it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float

from mechxai.core.errors import ConfigError
from mechxai.core.result import variable
from mechxai.core.statistics import bootstrap_weights, ratio_interval

_SMALL = 1e-5  # of the metric's size: what float32 may round


@dataclass(frozen=True)
class Curve:
    """The metric of circuits of growing size, and of random ones.

    Attributes:
        fractions: of the edges.
        none: the metric with every edge cut.
        whole: with none cut.
        circuits: the circuits' own, fraction by fraction, then those of each random draw.
    """

    fractions: Sequence[float]
    none: Float[np.ndarray, " prompt"]
    whole: Float[np.ndarray, " prompt"]
    circuits: Float[np.ndarray, "circuit prompt"]

    def variables(self, unit: str) -> dict[str, xr.DataArray]:
        """The variables of a result: ratios of means over prompts, with bootstrap intervals over prompts."""
        gap, n = self.whole - self.none, len(self.fractions)
        moved = self.circuits - self.none
        share = moved.mean(1) / gap.mean()
        bounds = ratio_interval(moved[:n].T, gap)
        drawn = share[n:].reshape(-1, n).T
        over = ("fraction",)
        what = "share of the metric's gap between no edge and all edges that the circuit brings"
        data = {
            "faithfulness": variable(over, share[:n], "fraction", what),
            "faithfulness_low": variable(over, bounds.low, "fraction", f"{what}, 95 % bootstrap over prompts, low"),
            "faithfulness_high": variable(over, bounds.high, "fraction", f"{what}, 95 % bootstrap over prompts, high"),
            "random_faithfulness": variable(("fraction", "draw"), drawn, "fraction", f"{what}, random circuits"),
            "baseline_clean": variable((), float(self.whole.mean()), unit, "metric of the whole model"),
            "baseline_none": variable((), float(self.none.mean()), unit, "metric with every edge cut"),
        }
        own: dict[str, xr.DataArray] = {}
        said = ("area under the faithfulness of growing circuits", "area under its distance from 1; 0 is best")
        again = areas(self._drawn(moved[:n], gap), self.fractions)
        for name, what, value, draws in zip(
            ("cpr", "cmd"), said, areas(share[:n, None], self.fractions), again, strict=True
        ):
            ends = np.percentile(draws, [2.5, 97.5])
            own[name] = variable((), float(value[0]), "fraction", what)
            for end, bound in zip(("low", "high"), ends, strict=True):
                own[f"{name}_{end}"] = variable((), float(bound), "fraction", f"{what}, 95 % over prompts, {end}")
        for name, values in zip(("cpr", "cmd"), areas(drawn, self.fractions), strict=True):
            own[f"{name}_random"] = variable(("draw",), values, "fraction", f"{name} of random circuits")
        return data | own

    def _drawn(
        self, moved: Float[np.ndarray, "fraction prompt"], gap: Float[np.ndarray, " prompt"]
    ) -> Float[np.ndarray, "fraction draw"]:
        """Faithfulness with prompts drawn anew."""
        weights = bootstrap_weights(len(gap))
        with np.errstate(invalid="ignore", divide="ignore"):
            return (weights @ moved.T / (weights @ gap)[:, None]).T


def check_gap(
    none: Float[np.ndarray, " prompt"], whole: Float[np.ndarray, " prompt"], *, metric: str, reference: str
) -> None:
    """Refuses prompts on which cutting every edge changes nothing, so that no share can be named.

    Raises:
        ConfigError: the mean metric is the same.
    """
    if not abs((whole - none).mean()) > _SMALL * max(1.0, float(np.abs(whole).mean())):
        raise ConfigError(
            f"Shares of the gap in {metric} were asked",
            got=f"{whole.mean():.3g} with all edges and {none.mean():.3g} with none (reference={reference})",
            fix="corrupted prompts whose answer differs (task.corruption), another metric, or another reference",
        )


def areas(
    values: Float[np.ndarray, "fraction n"], fractions: Sequence[float]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The areas under faithfulness (CPR) and under its distance from 1 (CMD), by the trapezoid rule.

    Fractions begin above 0, so even a perfect circuit has a CPR a little below 1.

    Source: Mueller et al. 2025 (arXiv 2504.13151), section 3.2.
    """
    return np.trapezoid(values, fractions, axis=0), np.trapezoid(np.abs(1 - values), fractions, axis=0)
