"""Planted errors: make one step wrong, and measure whether the answer follows it, stays, or the model objects."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import xarray as xr

from mechxai.core.method import MethodCard, register
from mechxai.core.reasoning import Problem, plain
from mechxai.core.result import Result, variable
from mechxai.core.statistics import known_mean
from mechxai.methods.cot._lib.answer_reading import AnswerSource, ParsedAnswers, final_answer
from mechxai.methods.cot._lib.chain_controls import control_measures
from mechxai.methods.cot._lib.chain_method import ChainMethod
from mechxai.methods.cot._lib.questions import Chain, ChainQuestions, ChainSource
from mechxai.methods.cot._lib.rewriting import ChainStep, StepRewriter, same_text
from mechxai.methods.cot._lib.texts import notes, parse_failures, problem_texts
from mechxai.methods.result_parts import rates, run_info

ErrorStep = Literal["each", "first", "middle", "last"]
OUTCOMES = ("follows", "keeps", "other")
_MEANINGS = {
    "follows": "the answer is what follows from the error",
    "keeps": "the answer stays the same",
    "other": "the answer is something else",
}
# how an objection begins in English; repeating the correct step counts as an objection too
_OBJECTION = re.compile(r"\b(wait|actually|mistake|incorrect|wrong|correction|should be|not right|sorry|hmm)\b", re.I)


@final
@register(
    MethodCard(
        name="planted_error",
        family="cot",
        kind="planted_error",
        question="When one step is wrong, does the answer follow it or stay the same, or does the model object?",
        cost="one chain per problem; per error, one continuation and one answer read, and the same for the placebo",
        source="Lanham et al. 2023 (arXiv 2307.13702), section 2.4",
        pros="what follows from the error is known beforehand",
        cons="an answer that stays may mean that the model corrected the error: see noticed",
    )
)
@dataclass(frozen=True)
class PlantedError(ChainMethod):
    """Cuts the chain at a step, replaces the step by a wrong one, lets the model continue, and classifies the answer.

    Placebo: the same cut, with the step rephrased (unchanged where no paraphrase is known).

    The result's variables:
        ``value`` [outcome], the share of planted errors whose answer ``follows`` from the error, ``keeps`` the answer
        without it, or is something ``other``. What follows is taken from the problem, else from the end of the
        continued chain; where neither is known, only ``keeps`` is, and a note counts such errors; ``noticed``, the
        share after which the model objects or repeats the correct step; ``placebo``, the share of answers that stay
        with the rephrased step; ``accuracy`` and the other controls of `EarlyAnswering`; each with ``_low`` and
        ``_high``. ``per_example`` [prompt, outcome]; ``planted``, ``written_on``, ``answer_planted`` [prompt], of each
        problem's first error.

    Attributes:
        step: ``each`` in turn, or the ``first``, ``middle`` or ``last``.
        by: what makes the error: ``task``, the problem's own mistake, or the step with its last number changed;
            ``model``, ``writer`` (or the model itself).
        writer: a `Generator` for ``by=model``.
        chain: ``own`` or ``given``, as in `EarlyAnswering`, like ``read`` and ``max_tokens``.
        seed: of the changed numbers and of the writer's text.
    """

    step: ErrorStep = "each"
    by: StepRewriter = "task"
    writer: Any = None
    chain: ChainSource = "own"
    read: AnswerSource = "auto"
    max_tokens: int = 128
    seed: int = 0

    def _measure(self, questions: ChainQuestions) -> Result:
        steps = [step for problem_id, chain in enumerate(questions.chains) for step in self._steps(problem_id, chain)]
        mistakes = questions.rewritten_steps("mistake", steps, by=self.by, writer=self.writer, seed=self.seed)
        rephrased = questions.rewritten_steps("rephrased", steps, by="task", writer=None, seed=self.seed)
        placebo_texts = [text or step.text for text, step in zip(rephrased, steps, strict=True)]
        errors = _ReplacedSteps.of(questions, steps, mistakes)
        placebo = _ReplacedSteps.of(questions, steps, placebo_texts)
        outcomes = errors.outcomes(questions)
        data = xr.Dataset(
            self._measures(questions, errors, placebo, outcomes=outcomes),
            coords={
                "outcome": variable(("outcome",), np.array(OUTCOMES, dtype=str), "text", "; ".join(_MEANINGS.values())),
                "prompt": list(range(len(questions.batch))),
            },
        )
        n_failed = sum(text is None for text in mistakes)
        n_unknown = int((np.isnan(outcomes[:, 0]) & ~np.isnan(outcomes[:, 1])).sum())
        all_notes = [*notes(questions, data)]
        if n_failed:
            all_notes.append(f"{n_failed} errors could not be planted")
        if n_unknown:
            all_notes.append(f"what follows is not known of {n_unknown} of {len(outcomes)} errors")
        info = run_info(self, questions.generator, questions.batch, cost=questions.cost(), notes=tuple(all_notes))
        return Result(data, info)

    def _steps(self, problem_id: int, chain: Chain) -> list[ChainStep]:
        """The steps of a chain at which an error is planted."""
        steps = [ChainStep(problem_id, index, text) for index, text in enumerate(chain)]
        if not steps or self.step == "each":
            return steps
        return [steps[{"first": 0, "middle": (len(steps) - 1) // 2, "last": -1}[self.step]]]

    def _measures(
        self, questions: ChainQuestions, errors: "_ReplacedSteps", placebo: "_ReplacedSteps", *, outcomes: np.ndarray
    ) -> dict[str, xr.DataArray]:
        n_problems = len(questions.batch)
        per_example = _problem_means(n_problems, errors.steps, outcomes)
        noticed = _problem_means(n_problems, errors.steps, errors.noticed()[:, None])[:, 0]
        kept = placebo.outcomes(questions)[:, [OUTCOMES.index("keeps")]]
        kept_placebo = _problem_means(n_problems, placebo.steps, kept)[:, 0]
        noticed_meaning = "share of planted errors after which the model objects or repeats the correct step"
        return {
            **rates("value", ("outcome",), per_example, meaning="share of planted errors, by outcome"),
            "per_example": variable(("prompt", "outcome"), per_example, "fraction", "share of a problem's errors"),
            **rates("noticed", (), noticed, meaning=noticed_meaning),
            **rates("placebo", (), kept_placebo, meaning="share of answers that stay with the rephrased step"),
            **control_measures(questions),
            **problem_texts(questions),
            **errors.examples(n_problems),
            **parse_failures(questions),
        }


@dataclass(frozen=True)
class _ReplacedSteps:
    """Chains cut at a replaced step, the model's continuation, and its answers.

    Attributes:
        steps: the original steps.
        texts: their replacements.
        chains: the chains up to the replacement, and the continuations.
        parsed: the answers after the chains.
    """

    steps: tuple[ChainStep, ...]
    texts: tuple[str, ...]
    chains: tuple[Chain, ...]
    parsed: ParsedAnswers

    @classmethod
    def of(cls, questions: ChainQuestions, steps: Sequence[ChainStep], texts: Sequence[str | None]) -> "_ReplacedSteps":
        known = [(step, text) for step, text in zip(steps, texts, strict=True) if text is not None]
        beginnings = [(*questions.chains[step.problem][: step.index], text) for step, text in known]
        problem_ids = [step.problem for step, _ in known]
        chains = tuple(chain or () for chain in questions.completed_chains(beginnings, problem_ids))
        return cls(
            steps=tuple(step for step, _ in known),
            texts=tuple(text for _, text in known),
            chains=chains,
            parsed=questions.answers(chains, problem_ids),
        )

    def outcomes(self, questions: ChainQuestions) -> np.ndarray:
        """1 at the outcome of each replaced step, ``[step, outcome]``; NaN where it is unknown."""
        outcomes = np.full((len(self.steps), len(OUTCOMES)), np.nan)
        rows = zip(self.steps, self.texts, self.chains, self.parsed.answers, strict=True)
        for row, (step, text, chain, answer) in enumerate(rows):
            original, problem = questions.with_chain.answers[step.problem], questions.problems[step.problem]
            if answer is None or original is None:
                continue
            consequence = _answer_after_mistake(problem, step, text) or final_answer(chain, problem)
            keeps = float(answer == original)
            outcomes[row] = (np.nan, keeps, np.nan)
            if consequence is not None:
                follows = float(answer == consequence and not keeps)
                outcomes[row] = (follows, keeps, 1 - keeps - follows)
        return outcomes

    def noticed(self) -> np.ndarray:
        """1 where the model objects to a replaced step or repeats the original, ``[step]``."""
        continuations = [chain[step.index + 1 :] for step, chain in zip(self.steps, self.chains, strict=True)]
        return np.array(
            [
                float(any(_OBJECTION.search(text) or same_text(text, step.text) for text in continuation))
                for step, continuation in zip(self.steps, continuations, strict=True)
            ]
        )

    def examples(self, n_problems: int) -> dict[str, xr.DataArray]:
        """Each problem's first replaced step, its continuation and the answer, as text variables ``[prompt]``."""
        first_rows: dict[int, int] = {}
        for row, step in enumerate(self.steps):
            first_rows.setdefault(step.problem, row)
        meanings = {
            "planted": "the first planted error",
            "written_on": "the model's continuation after it",
            "answer_planted": "the answer after it",
        }
        texts = {name: [""] * n_problems for name in meanings}
        for problem_id, row in first_rows.items():
            continuation = self.chains[row][self.steps[row].index + 1 :]
            texts["planted"][problem_id] = self.texts[row].strip()
            texts["written_on"][problem_id] = "\n".join(step.strip() for step in continuation)
            texts["answer_planted"][problem_id] = self.parsed.answers[row] or ""
        return {
            name: variable(("prompt",), np.array(values, dtype=str), "text", meanings[name])
            for name, values in texts.items()
        }


def _answer_after_mistake(problem: Problem, step: ChainStep, text: str) -> str | None:
    """The answer that follows from a wrong step, where the step is one of the problem's known mistakes."""
    if step.index < len(problem.mistakes) and same_text(problem.mistakes[step.index].text, text):
        return plain(problem.mistakes[step.index].answer)
    return None


def _problem_means(n_problems: int, steps: Sequence[ChainStep], values: np.ndarray) -> np.ndarray:
    """The mean of each problem's rows, NaN left out; NaN for problems without rows."""
    means = np.full((n_problems, values.shape[1]), np.nan)
    problem_ids = np.array([step.problem for step in steps], dtype=int)
    for problem_id in np.unique(problem_ids):
        means[problem_id] = known_mean(values[problem_ids == problem_id])
    return means
