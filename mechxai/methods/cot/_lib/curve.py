"""Answers along a chain that is changed more and more: one curve per problem, and what all of them say together."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr
from jaxtyping import Float

from mechxai.core.method import Method
from mechxai.core.reasoning import ReasoningBatch
from mechxai.core.result import Result, variable
from mechxai.core.statistics import known_mean
from mechxai.engine.execution import Execution
from mechxai.methods.cot._lib.answer_reading import ParsedAnswer
from mechxai.methods.cot._lib.chain_controls import agreement, controlled
from mechxai.methods.cot._lib.questions import ChainQuestions, Steps, check_asking
from mechxai.methods.cot._lib.texts import notes, parse_failures, said
from mechxai.methods.result_parts import bounded, rates, run_info
from mechxai.model.generation.generator import Generator
from mechxai.model.hooked_model import HookedModel

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


@dataclass(frozen=True)
class CurveMethod(Method):
    """Changes chains more and more, and asks whether the answer stays; what is changed is each method's own.

    Attributes:
        chain: ``own``, what the model writes (the likeliest token each time); ``given``, the problem's right chain.
        read: ``logprobs`` of the options, ``text``, or ``auto``, the former where the model gives them.
        max_tokens: of a chain.
    """

    takes: ClassVar[type] = ReasoningBatch
    axis: ClassVar[str]

    chain: str = "own"
    read: str = "auto"
    max_tokens: int = 128

    def _check_fields(self) -> None:
        check_asking(self.read, self.chain, self.max_tokens)

    def __call__(
        self,
        model: HookedModel | Generator,
        batch: ReasoningBatch,
        *,
        execution: Execution = Execution(),  # noqa: B008 - frozen
    ) -> Result:
        """Whether the answer stays.

        Returns:
            ``agreement`` [fraction], the share of problems answered as with the whole chain; ``aoc``, the area over
            that curve (an answer that hangs on the last of n steps gives 1 - 1/2n, not 1); ``margin`` [fraction] of
            that answer, where log-probabilities are known; ``accuracy``, ``accuracy_no_chain`` and ``gain`` of the
            chain; ``control_accuracy`` and ``control_agreement`` [control]; ``parse_failures``; each with ``_low`` and
            ``_high``. ``agreement_by_length`` [n_steps, knot], a knot per step; ``per_example`` [prompt, fraction]; the
            texts. Answers that could not be read are in none of the curves.

        Raises:
            ConfigError: ``chain=given`` with problems whose chain is not known.
            ModelSupportError: a model that does not write, or ``read=logprobs`` of one without log-probabilities.
        """
        asking = ChainQuestions(model, batch, execution, read=self.read, chain=self.chain, max_tokens=self.max_tokens)
        return _result(self, asking, self.changed(asking))

    @abstractmethod
    def changed(self, asking: ChainQuestions) -> list[Variant]:
        """The changed chains; where they stand on ``axis`` is their fraction."""


def _result(method: CurveMethod, asking: ChainQuestions, variants: Sequence[Variant]) -> Result:
    known = [variant for variant in variants if variant.steps is not None]
    of = [variant.problem for variant in known]
    read = asking.answers([variant.steps or () for variant in known], of)
    whole = asking.with_chain
    same = [agreement(answer, whole.answers[number]) for answer, number in zip(read.answers, of, strict=True)]
    margins = [read.margin(place, whole.answers[number]) for place, number in enumerate(of)]
    curves = _Curves(len(asking.batch), known, np.array(same))
    per_example = curves.on(FRACTIONS)
    dims = ("fraction",)
    data = {
        **rates("agreement", dims, per_example, units="fraction", meaning=_AGREES),
        "per_example": variable(("prompt", *dims), per_example, "fraction", f"{_AGREES}, one by one"),
        **rates("aoc", (), curves.area_over(), units="fraction", meaning="area over the curve of agreement"),
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
        **_example(asking, known, read),
        **parse_failures(asking),
    }
    coords = {"fraction": FRACTIONS, "prompt": list(range(len(asking.batch)))}
    whole_data = xr.Dataset(data, coords=coords)
    whole_data["fraction"].attrs = {"units": "fraction", "long_name": method.axis}
    left = len(variants) - len(known)
    unmade = (f"{left} of {len(variants)} changes could not be made",) if left else ()
    told = (*notes(asking, whole_data), *unmade)
    return Result(whole_data, run_info(method, asking.generator, asking.batch, cost=asking.cost(), notes=told))


def _example(asking: ChainQuestions, known: Sequence[Variant], read: ParsedAnswer) -> dict[str, xr.DataArray]:
    """Of each problem, one chain as it was changed, midway, and the answer behind it."""
    texts = {"changed": [""] * len(asking.batch), "answer_changed": [""] * len(asking.batch)}
    for number in range(len(asking.batch)):
        own = [place for place, variant in enumerate(known) if variant.problem == number]
        if own:
            place = min(own, key=lambda place: abs(known[place].fraction - 0.5))
            texts["changed"][number] = "\n".join(step.strip() for step in known[place].steps or ())
            texts["answer_changed"][number] = read.answers[place] or ""
    names = {"changed": "a chain as it was changed, midway", "answer_changed": "the answer behind it"}
    return {name: variable(("prompt",), np.array(own, dtype=str), "text", names[name]) for name, own in texts.items()}


class _Curves:
    """Values at knots of each problem's own; those that are not known are none."""

    def __init__(self, n_problems: int, variants: Sequence[Variant], values: np.ndarray) -> None:
        self._of: list[list[tuple[float, float]]] = [[] for _ in range(n_problems)]
        for variant, value in zip(variants, values, strict=True):
            if np.isfinite(value):
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

    def by_step(self, number: int, n_steps: int) -> Float[np.ndarray, " step"]:
        """The values of one problem after 0, 1, ... of its steps; NaN where they are not known."""
        found = np.full(n_steps + 1, np.nan)
        for fraction, value in self._of[number]:
            found[round(fraction * n_steps)] = value
        return found


def _by_length(asking: ChainQuestions, curves: _Curves) -> dict[str, xr.DataArray]:
    """Agreement at the knots themselves, apart by the number of steps, as Lanham et al. plot it."""
    lengths = [len(steps) for steps in asking.chains]
    kinds = sorted(set(lengths))
    table, share = np.full((len(kinds), max(lengths) + 1), np.nan), np.zeros(len(kinds))
    for row, kind in enumerate(kinds):
        own = [number for number, length in enumerate(lengths) if length == kind]
        share[row] = len(own) / len(lengths)
        table[row, : kind + 1] = known_mean(np.array([curves.by_step(number, kind) for number in own]))
    return {
        "agreement_by_length": variable(("n_steps", "knot"), table, "fraction", f"{_AGREES}, by length of the chain"),
        "length_share": variable(("n_steps",), share, "fraction", "share of problems with a chain of this length"),
        "n_steps": xr.DataArray(kinds, dims=("n_steps",), attrs={"units": "sentences", "long_name": "steps"}),
        "knot": xr.DataArray(
            range(max(lengths) + 1), dims=("knot",), attrs={"units": "sentences", "long_name": "step"}
        ),
    }
