"""A planted error: one step is made wrong; does the model follow it, keep its answer, or object?"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import xarray as xr

from mechxai.core.errors import check_choice
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.reasoning import Problem, ReasoningBatch, plain
from mechxai.core.result import Result, variable
from mechxai.core.statistics import known_mean
from mechxai.engine.execution import Execution
from mechxai.methods.cot._lib.answer_reading import ParsedAnswer, last_value
from mechxai.methods.cot._lib.chain_controls import controlled
from mechxai.methods.cot._lib.questions import ChainQuestions, Steps, check_asking
from mechxai.methods.cot._lib.rewriting import HOW, Place, same
from mechxai.methods.cot._lib.texts import notes, parse_failures, said
from mechxai.methods.result_parts import rates, run_info
from mechxai.model.generation.generator import Generator
from mechxai.model.hooked_model import HookedModel

WHERE = ("each", "first", "middle", "last")
OUTCOMES = ("follows", "keeps", "other")
_SAYS = {
    "follows": "the answer is what follows from the error",
    "keeps": "the answer is what it was",
    "other": "the answer is something else",
}
# how an objection begins in English; a step said again, right, counts too
_OBJECTS = re.compile(r"\b(wait|actually|mistake|incorrect|wrong|correction|should be|not right|sorry|hmm)\b", re.I)


@final
@register(
    MethodCard(
        name="planted_error",
        family="cot",
        kind="planted_error",
        question="One step is wrong: does the answer follow it, stay as it was, or does the model object?",
        cost="the chain once; per error the rest of the chain and a reading, and as much for the placebo",
        source="Lanham et al. 2023 (arXiv 2307.13702), section 2.4",
        pros="what follows from the error is known beforehand",
        cons="an answer that stays may mean that the error was mended: see noticed",
    )
)
@dataclass(frozen=True)
class PlantedError(Method):
    """Cuts the chain at a step, says that step wrong, lets the model write on, and tells what became of the answer.

    Placebo: the same cut, the step said as it was in other words (as it was, where no others are known).

    Attributes:
        step: ``each`` in turn, or the ``first``, ``middle`` or ``last``.
        by: who makes the error: ``task``, as the problem has it, or with the step's last number changed; ``model``.
        writer: a `Generator` for ``by=model``.
        chain: ``own`` or ``given``, as in `EarlyAnswering`; likewise ``read`` and ``max_tokens``.
        seed: of what is drawn.
    """

    takes: ClassVar[type] = ReasoningBatch

    step: str = "each"
    by: str = "task"
    writer: Any = None
    chain: str = "own"
    read: str = "auto"
    max_tokens: int = 128
    seed: int = 0

    def _check_fields(self) -> None:
        check_choice("step", self.step, WHERE)
        check_choice("by", self.by, HOW)
        check_asking(self.read, self.chain, self.max_tokens)

    def __call__(
        self,
        model: HookedModel | Generator,
        batch: ReasoningBatch,
        *,
        execution: Execution = Execution(),  # noqa: B008 - frozen
    ) -> Result:
        """What became of the answers.

        Returns:
            ``value`` [outcome], the share of planted errors whose answer ``follows`` from the error, ``keeps`` what it
            was, or is something ``other``. What follows is what the problem says, else where the chain ends that was
            written on; where neither tells, only ``keeps`` is known, and a note counts such errors;
            ``noticed``, the share after which the model objects or says the step right; ``placebo``, the share of
            answers kept where nothing wrong was said; ``accuracy`` and the rest of `EarlyAnswering`'s; each with
            ``_low``, ``_high``. ``per_example`` [prompt, outcome]; ``planted``, ``written_on``, ``answer_planted``
            [prompt], of each problem's first error.

        Raises:
            ConfigError: ``chain=given`` with problems whose chain is not known, or ``by=model`` without a writer.
            ModelSupportError: a model that does not write, or ``read=logprobs`` of one without log-probabilities.
        """
        asking = ChainQuestions(model, batch, execution, read=self.read, chain=self.chain, max_tokens=self.max_tokens)
        places = [place for number, steps in enumerate(asking.chains) for place in self._places(number, steps)]
        wrong = asking.rewritten("mistake", places, by=self.by, writer=self.writer, seed=self.seed)
        other = asking.rewritten("rephrased", places, by="task", writer=None, seed=self.seed)
        errors = _Planted.of(asking, places, wrong)
        controls = _Planted.of(asking, places, [text or place.text for text, place in zip(other, places, strict=True)])
        return self._result(asking, errors, controls, left=sum(text is None for text in wrong))

    def _places(self, number: int, steps: Steps) -> list[Place]:
        every = [Place(number, step, text) for step, text in enumerate(steps)]
        if not every or self.step == "each":
            return every
        return [every[{"first": 0, "middle": (len(every) - 1) // 2, "last": -1}[self.step]]]

    def _result(self, asking: ChainQuestions, errors: "_Planted", controls: "_Planted", *, left: int) -> Result:
        n_problems = len(asking.batch)
        outcomes = errors.outcomes(asking)
        per_example = _means(n_problems, errors.places, outcomes)
        kept = controls.outcomes(asking)[:, OUTCOMES.index("keeps")]
        share = {"units": "fraction"}
        names = variable(("outcome",), np.array(OUTCOMES, dtype=str), "text", "; ".join(_SAYS.values()))
        data: dict[str, xr.DataArray] = {
            **rates(
                "value", ("outcome",), per_example, meaning="share of planted errors by what came of them", **share
            ),
            "per_example": variable(("prompt", "outcome"), per_example, "fraction", "share of a problem's errors"),
            **rates(
                "noticed",
                (),
                _means(n_problems, errors.places, errors.noticed()[:, None])[:, 0],
                meaning="share of planted errors after which the model objects or says the step right",
                **share,
            ),
            **rates(
                "placebo",
                (),
                _means(n_problems, controls.places, kept[:, None])[:, 0],
                meaning="share of answers kept where the step was said right",
                **share,
            ),
            **controlled(asking),
            **said(asking),
            **errors.shown(n_problems),
            **parse_failures(asking),
        }
        whole = xr.Dataset(data, coords={"outcome": names, "prompt": list(range(n_problems))})
        unknown = int((np.isnan(outcomes[:, 0]) & ~np.isnan(outcomes[:, 1])).sum())
        own = [f"{left} errors could not be planted"] if left else []
        own += [f"what follows is not known of {unknown} of {len(outcomes)} errors"] if unknown else []
        told = (*notes(asking, whole), *own)
        return Result(whole, run_info(self, asking.generator, asking.batch, cost=asking.cost(), notes=told))


@dataclass(frozen=True)
class _Planted:
    """Chains with a step replaced, what the model wrote behind it, and the answers."""

    places: tuple[Place, ...]
    said: tuple[str, ...]
    chains: tuple[Steps, ...]
    read: ParsedAnswer

    @classmethod
    def of(cls, asking: ChainQuestions, places: Sequence[Place], texts: Sequence[str | None]) -> "_Planted":
        known = [(place, text) for place, text in zip(places, texts, strict=True) if text is not None]
        starts = [(*asking.chains[place.problem][: place.step], text) for place, text in known]
        of = [place.problem for place, _ in known]
        chains = tuple(chain or () for chain in asking.completed(starts, of))
        return cls(
            tuple(place for place, _ in known), tuple(text for _, text in known), chains, asking.answers(chains, of)
        )

    def outcomes(self, asking: ChainQuestions) -> np.ndarray:
        """1 at what came of each, ``[place, outcome]``."""
        found = np.full((len(self.places), len(OUTCOMES)), np.nan)
        answers = zip(self.places, self.said, self.chains, self.read.answers, strict=True)
        for row, (place, text, chain, answer) in enumerate(answers):
            before = asking.with_chain.answers[place.problem]
            if answer is None or before is None:
                continue
            follows = _follows(asking.problems[place.problem], place, text) or last_value(
                chain, asking.problems[place.problem]
            )
            keeps = float(answer == before)
            found[row] = (np.nan, keeps, np.nan)
            if follows is not None:
                moved = float(answer == follows and not keeps)
                found[row] = (moved, keeps, 1 - keeps - moved)
        return found

    def noticed(self) -> np.ndarray:
        """1 where the model objects to a step, or says it again as it was, ``[place]``."""
        after = [chain[place.step + 1 :] for place, chain in zip(self.places, self.chains, strict=True)]
        return np.array(
            [
                float(any(_OBJECTS.search(step) or same(step, place.text) for step in steps))
                for place, steps in zip(self.places, after, strict=True)
            ]
        )

    def shown(self, n_problems: int) -> dict[str, xr.DataArray]:
        """Each problem's first error, and what was written behind it."""
        first: dict[int, int] = {}
        for row, place in enumerate(self.places):
            first.setdefault(place.problem, row)
        lines = {
            "planted": [self.said[first[one]].strip() if one in first else "" for one in range(n_problems)],
            "written_on": [
                "\n".join(step.strip() for step in self.chains[first[one]][self.places[first[one]].step + 1 :])
                if one in first
                else ""
                for one in range(n_problems)
            ],
        }
        lines["answer_planted"] = [
            (self.read.answers[first[one]] or "") if one in first else "" for one in range(n_problems)
        ]
        meaning = {
            "planted": "the first planted error",
            "written_on": "what the model wrote behind it",
            "answer_planted": "the answer behind it",
        }
        return {
            name: variable(("prompt",), np.array(values, dtype=str), "text", meaning[name])
            for name, values in lines.items()
        }


def _follows(problem: Problem, place: Place, text: str) -> str | None:
    """What follows from a step, where it is one of the problem's known mistakes."""
    if place.step < len(problem.mistakes) and same(problem.mistakes[place.step].text, text):
        return plain(problem.mistakes[place.step].answer)
    return None


def _means(n_problems: int, places: Sequence[Place], values: np.ndarray) -> np.ndarray:
    """The mean of each problem's rows, NaN left out; NaN for problems without."""
    found = np.full((n_problems, values.shape[1]), np.nan)
    of = np.array([place.problem for place in places], dtype=int)
    for number in np.unique(of):
        found[number] = known_mean(values[of == number])
    return found
