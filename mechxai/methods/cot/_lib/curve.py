"""Methods that change more and more of a chain: one curve of agreement per problem, their mean and its area."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import xarray as xr
from jaxtyping import Float

from mechxai.core.result import Result, variable
from mechxai.core.statistics import known_mean
from mechxai.methods.cot._lib.answer_reading import AnswerSource, ParsedAnswers
from mechxai.methods.cot._lib.chain_controls import control_measures, same_answer
from mechxai.methods.cot._lib.chain_method import ChainMethod
from mechxai.methods.cot._lib.questions import Chain, ChainQuestions, ChainSource
from mechxai.methods.cot._lib.texts import notes, parse_failures, problem_texts
from mechxai.methods.result_parts import bounded, rates, run_info

FRACTIONS = np.linspace(0.0, 1.0, 11).round(2)
_AGREEMENT = "share of problems with the same answer as with the whole chain"
Curves = Float[np.ndarray, "prompt fraction"]


@dataclass(frozen=True)
class ChainVariant:
    """A changed chain of one problem.

    Attributes:
        problem: index of the problem.
        fraction: the share of the chain that the model wrote itself (for fillers, the share that is present).
        chain: the text between question and cue; None where the change could not be made.
    """

    problem: int
    fraction: float
    chain: Chain | None


@dataclass(frozen=True)
class CurveMethod(ChainMethod):
    """Changes an increasing part of the chain and measures how often the answer stays the same.

    The result's variables:
        ``agreement`` [fraction], the share of problems answered as with the whole chain; ``aoc``, the area over that
        curve (an answer that depends on the last of n steps alone gives 1 - 1/2n, not 1); ``margin`` [fraction] of the
        whole chain's answer in nats, where log-probabilities are known; ``accuracy``, ``accuracy_no_chain`` and
        ``gain`` of the chain; ``control_accuracy`` and ``control_agreement`` [control]; ``parse_failures``; each with
        ``_low`` and ``_high``. ``agreement_by_length`` [n_steps, knot], with one knot per step; ``per_example``
        [prompt, fraction]; the texts. Answers that could not be parsed are left out of the curves.

    Attributes:
        chain: ``own``, the chain that the model writes (the likeliest token at each step); ``given``, the problem's
            correct chain.
        read: ``logprobs`` of the options, ``text``, or ``auto``: log-probabilities where the model provides them.
        max_tokens: of a chain.
    """

    axis: ClassVar[str]

    chain: ChainSource = "own"
    read: AnswerSource = "auto"
    max_tokens: int = 128

    @final
    def _measure(self, questions: ChainQuestions) -> Result:
        variants = self._variants(questions)
        made = [variant for variant in variants if variant.chain is not None]
        parsed = questions.answers([variant.chain or () for variant in made], [variant.problem for variant in made])
        data = xr.Dataset(
            _measures(questions, made, parsed),
            coords={"fraction": FRACTIONS, "prompt": list(range(len(questions.batch)))},
        )
        data["fraction"].attrs = {"units": "fraction", "long_name": self.axis}
        n_failed = len(variants) - len(made)
        failed = (f"{n_failed} of {len(variants)} changes could not be made",) if n_failed else ()
        all_notes = (*notes(questions, data), *failed)
        info = run_info(self, questions.generator, questions.batch, cost=questions.cost(), notes=all_notes)
        return Result(data, info)

    @abstractmethod
    def _variants(self, questions: ChainQuestions) -> list[ChainVariant]:
        """The changed chains of all problems; their fraction is their place on the curve's axis."""


def _measures(
    questions: ChainQuestions, variants: Sequence[ChainVariant], parsed: ParsedAnswers
) -> dict[str, xr.DataArray]:
    whole = [questions.with_chain.answers[variant.problem] for variant in variants]
    same = [same_answer(answer, reference) for answer, reference in zip(parsed.answers, whole, strict=True)]
    margins = [parsed.margin(index, reference) for index, reference in enumerate(whole)]
    n_problems, dims = len(questions.batch), ("fraction",)
    curves = _Curves(n_problems, variants, np.array(same))
    margin_curves = _Curves(n_problems, variants, np.array(margins))
    per_example = curves.interpolated(FRACTIONS)
    margin_meaning = "log-probability of the whole chain's answer minus that of the best other option"
    return {
        **rates("agreement", dims, per_example, meaning=_AGREEMENT),
        "per_example": variable(("prompt", *dims), per_example, "fraction", f"{_AGREEMENT}, per problem"),
        **rates("aoc", (), curves.area_over(), meaning="area over the curve of agreement"),
        **bounded("margin", dims, margin_curves.interpolated(FRACTIONS), units="nats", meaning=margin_meaning),
        **control_measures(questions),
        **_by_length(questions, curves),
        **problem_texts(questions),
        **_example(n_problems, variants, parsed),
        **parse_failures(questions),
    }


def _example(n_problems: int, variants: Sequence[ChainVariant], parsed: ParsedAnswers) -> dict[str, xr.DataArray]:
    """For each problem, the variant that is changed nearest to the middle of the chain, and the answer after it."""
    texts = {"changed": [""] * n_problems, "answer_changed": [""] * n_problems}
    for problem_id in range(n_problems):
        indices = [index for index, variant in enumerate(variants) if variant.problem == problem_id]
        if indices:
            index = min(indices, key=lambda index: abs(variants[index].fraction - 0.5))
            texts["changed"][problem_id] = "\n".join(step.strip() for step in variants[index].chain or ())
            texts["answer_changed"][problem_id] = parsed.answers[index] or ""
    meanings = {"changed": "a chain changed near its middle", "answer_changed": "the answer after the changed chain"}
    return {
        name: variable(("prompt",), np.array(values, dtype=str), "text", meanings[name])
        for name, values in texts.items()
    }


class _Curves:
    """One curve per problem through the known values of its variants; each problem has its own knots."""

    def __init__(self, n_problems: int, variants: Sequence[ChainVariant], values: np.ndarray) -> None:
        self._knots: list[list[tuple[float, float]]] = [[] for _ in range(n_problems)]
        for variant, value in zip(variants, values, strict=True):
            if np.isfinite(value):
                self._knots[variant.problem].append((variant.fraction, float(value)))

    def interpolated(self, fractions: np.ndarray) -> Curves:
        """Values on a common axis, linear between knots; NaN for problems with fewer than two knots."""
        curves = np.full((len(self._knots), len(fractions)), np.nan)
        for problem_id, knots in enumerate(self._knots):
            if len(knots) > 1:
                at, values = np.array(sorted(knots)).T
                curves[problem_id] = np.interp(fractions, at, values, left=np.nan, right=np.nan)
        return curves

    def area_over(self) -> Float[np.ndarray, " prompt"]:
        """1 minus the area under each problem's curve, over the part of the axis that the curve covers.

        The mean over problems equals the mean over chain lengths, each weighted by its share of problems.
        """
        areas = np.full(len(self._knots), np.nan)
        for problem_id, knots in enumerate(self._knots):
            if len(knots) > 1:
                at, values = np.array(sorted(knots)).T
                areas[problem_id] = 1 - np.trapezoid(values, at) / (at[-1] - at[0])
        return areas

    def by_step(self, problem_id: int, n_steps: int) -> Float[np.ndarray, " step"]:
        """One problem's values after 0, 1, ... of its steps; NaN where unknown."""
        values = np.full(n_steps + 1, np.nan)
        for fraction, value in self._knots[problem_id]:
            values[round(fraction * n_steps)] = value
        return values


def _by_length(questions: ChainQuestions, curves: _Curves) -> dict[str, xr.DataArray]:
    """Agreement at the knots, separately for each number of steps, as Lanham et al. plot it."""
    lengths = [len(chain) for chain in questions.chains]
    distinct = sorted(set(lengths))
    table, shares = np.full((len(distinct), max(lengths) + 1), np.nan), np.zeros(len(distinct))
    for row, n_steps in enumerate(distinct):
        problem_ids = [problem_id for problem_id, length in enumerate(lengths) if length == n_steps]
        shares[row] = len(problem_ids) / len(lengths)
        values = np.array([curves.by_step(problem_id, n_steps) for problem_id in problem_ids])
        table[row, : n_steps + 1] = known_mean(values)
    knots = range(max(lengths) + 1)
    return {
        "agreement_by_length": variable(("n_steps", "knot"), table, "fraction", f"{_AGREEMENT}, by chain length"),
        "length_share": variable(("n_steps",), shares, "fraction", "share of problems with a chain of this length"),
        "n_steps": xr.DataArray(distinct, dims=("n_steps",), attrs={"units": "sentences", "long_name": "steps"}),
        "knot": xr.DataArray(knots, dims=("knot",), attrs={"units": "sentences", "long_name": "step"}),
    }
