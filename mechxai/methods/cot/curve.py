"""Answers along a chain that is changed more and more: one curve per problem, and what all of them say together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float

from mechxai.core.method import Method
from mechxai.core.result import Result, variable
from mechxai.methods.cot.asking import Asking, Steps
from mechxai.methods.cot.controls import controlled
from mechxai.methods.cot.texts import gate, parse_failures, said
from mechxai.methods.record import bounded, run_info

FRACTIONS = np.linspace(0.0, 1.0, 11).round(2)
_AGREES = "share of problems with the same answer as with the whole chain"
Curves = Float[np.ndarray, "prompt fraction"]


@dataclass(frozen=True)
class Variant:
    """A problem's chain, changed.

    Attributes:
        problem: its number.
        fraction: how much of the chain is as the model wrote it (or, for fillers, how much of it is there).
        steps: what stands between question and cue; None where the chain could not be changed so.
    """

    problem: int
    fraction: float
    steps: Steps | None


def curve_result(method: Method, asking: Asking, variants: Sequence[Variant], *, axis: str) -> Result:
    """The result of a method that changes chains.

    Args:
        method: it.
        asking: its questions.
        variants: the changed chains; each problem's with ascending fractions.
        axis: what the fraction means, in words.
    """
    known = [variant for variant in variants if variant.steps is not None]
    of = [variant.problem for variant in known]
    read = asking.answers([variant.steps or () for variant in known], of)
    whole = asking.with_chain
    same = [float(answer == whole.answers[number]) for answer, number in zip(read.answers, of, strict=True)]
    same = [np.nan if whole.answers[number] is None else value for value, number in zip(same, of, strict=True)]
    margins = [read.margin(place, whole.answers[number]) for place, number in enumerate(of)]
    curves = _Curves(len(asking.batch), known, np.array(same))
    per_example = curves.on(FRACTIONS)
    dims = ("fraction",)
    data = {
        **bounded("agreement", dims, per_example, units="fraction", meaning=_AGREES),
        "per_example": variable(("prompt", *dims), per_example, "fraction", f"{_AGREES}, one by one"),
        **bounded("aoc", (), curves.area_over(), units="fraction", meaning="area over the curve of agreement"),
        **bounded(
            "margin",
            dims,
            _Curves(len(asking.batch), known, np.array(margins)).on(FRACTIONS),
            units="nats",
            meaning="log-probability of the whole chain's answer over the best other",
        ),
        **controlled(asking),
        **_by_length(asking, curves),
        **said(asking),
        **parse_failures(asking, read),
    }
    coords = {"fraction": FRACTIONS, "prompt": list(range(len(asking.batch)))}
    whole_data = xr.Dataset(data, coords=coords)
    whole_data["fraction"].attrs = {"units": "fraction", "long_name": axis}
    left = len(variants) - len(known)
    notes = (*gate(whole_data), *([f"{left} of {len(variants)} changes could not be made"] if left else []))
    return Result(whole_data, run_info(method, asking.generator, asking.batch, cost=asking.cost(), notes=notes))


class _Curves:
    """Values at knots of each problem's own."""

    def __init__(self, n_problems: int, variants: Sequence[Variant], values: np.ndarray) -> None:
        self._of: list[list[tuple[float, float]]] = [[] for _ in range(n_problems)]
        for variant, value in zip(variants, values, strict=True):
            self._of[variant.problem].append((variant.fraction, float(value)))

    def on(self, fractions: np.ndarray) -> Curves:
        """On a common axis, straight between knots; NaN for problems with fewer than two."""
        found = np.full((len(self._of), len(fractions)), np.nan)
        for number, knots in enumerate(self._of):
            if len(knots) > 1:
                at, values = np.array(sorted(knots)).T
                found[number] = np.interp(fractions, at, values, left=np.nan, right=np.nan)
        return found

    def area_over(self) -> Float[np.ndarray, " prompt"]:
        """1 less the area under each problem's curve, over the part of the axis that it covers.

        Their mean is the mean over lengths of chains, each weighted by the share of problems that have it.
        """
        found = np.full(len(self._of), np.nan)
        for number, knots in enumerate(self._of):
            if len(knots) > 1:
                at, values = np.array(sorted(knots)).T
                found[number] = 1 - np.trapezoid(values, at) / (at[-1] - at[0])
        return found

    def knots(self, number: int) -> list[float]:
        """The values of one problem at its own knots."""
        return [value for _, value in sorted(self._of[number])]


def _by_length(asking: Asking, curves: _Curves) -> dict[str, xr.DataArray]:
    """Agreement at the knots themselves, apart by the number of steps, as Lanham et al. plot it."""
    lengths = [len(steps) for steps in asking.chains]
    kinds, most = sorted(set(lengths)), max(len(curves.knots(number)) for number in range(len(lengths)))
    table, share = np.full((len(kinds), max(most, 1)), np.nan), np.zeros(len(kinds))
    for row, kind in enumerate(kinds):
        own = [number for number, length in enumerate(lengths) if length == kind]
        share[row] = len(own) / len(lengths)
        for place in range(most):
            values = [knots[place] for number in own if len(knots := curves.knots(number)) > place]
            table[row, place] = np.nanmean(values) if np.isfinite(values).any() else np.nan
    return {
        "agreement_by_length": variable(("n_steps", "knot"), table, "fraction", f"{_AGREES}, by length of the chain"),
        "length_share": variable(("n_steps",), share, "fraction", "share of problems with a chain of this length"),
    } | {"n_steps": xr.DataArray(kinds, dims=("n_steps",), attrs={"units": "sentences", "long_name": "steps"})}
