"""Controls for interventions on a chain: answers with the chain, without it, and with chains of other content."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from mechxai.core.reasoning import plain
from mechxai.core.result import variable
from mechxai.methods.cot._lib.questions import Chain, ChainQuestions
from mechxai.methods.result_parts import rates

CONTROLS = ("irrelevant", "another's", "none")
_MEANINGS = {
    "irrelevant": "an irrelevant text of the same length",
    "another's": "the chain of another problem",
    "none": "no chain",
}


def control_measures(questions: ChainQuestions) -> dict[str, xr.DataArray]:
    """Accuracy with and without the chain, their difference, and each control's accuracy and agreement.

    Returns:
        ``accuracy``, ``accuracy_no_chain`` and ``gain`` (a difference of paired answers); ``control_accuracy`` and
        ``control_agreement`` [control], the latter with the answer of the whole chain; each as a fraction, with 95 %
        intervals over problems; ``control``, the names.
    Cost: four answers read per problem.
    """
    with_chain, without_chain = questions.with_chain, questions.without_chain
    answers_by_control = {
        "irrelevant": _answers(questions, [_irrelevant_chain(questions, chain) for chain in questions.chains]),
        "another's": _answers(questions, _chains_of_others(questions)),
        "none": dict(enumerate(without_chain.answers)),
    }
    correct, correct_without = np.array(questions.correct(with_chain)), np.array(questions.correct(without_chain))
    control_correct, agreement = np.full((2, len(questions.batch), len(CONTROLS)), np.nan)
    for column, control in enumerate(CONTROLS):
        for problem_id, answer in answers_by_control[control].items():
            control_correct[problem_id, column] = float(answer == plain(questions.problems[problem_id].answer))
            agreement[problem_id, column] = same_answer(answer, with_chain.answers[problem_id])
    gain_meaning = "accuracy with the chain minus accuracy without it"
    agreement_meaning = "share of answers equal to the answer of the whole chain, with another chain"
    names = variable(
        ("control",),
        np.array(CONTROLS, dtype=str),
        "text",
        "; ".join(f"{name}: {_MEANINGS[name]}" for name in CONTROLS),
    )
    return {
        **rates("accuracy", (), correct, meaning="share of correct answers with the chain"),
        **rates("accuracy_no_chain", (), correct_without, meaning="share of correct answers without a chain"),
        **rates("gain", (), correct - correct_without, meaning=gain_meaning),
        **rates(
            "control_accuracy", ("control",), control_correct, meaning="share of correct answers with another chain"
        ),
        **rates("control_agreement", ("control",), agreement, meaning=agreement_meaning),
        "control": names,
    }


def same_answer(first: str | None, second: str | None) -> float:
    """1 for equal answers, 0 for different ones; NaN where one could not be parsed."""
    return float("nan") if first is None or second is None else float(first == second)


def repeated_to_length(parts: Sequence[str], questions: ChainQuestions, reference: str) -> str:
    """Parts repeated to a text as close as possible in length to a reference text, at least one part."""
    target, count = questions.generator.length(reference), 1

    def text(n_parts: int) -> str:
        return "".join(parts[index % len(parts)] for index in range(n_parts))

    def distance(n_parts: int) -> int:
        return abs(questions.generator.length(text(n_parts)) - target)

    while distance(count + 1) < distance(count):
        count += 1
    return text(count)


def _answers(questions: ChainQuestions, chains: Sequence[Chain | None]) -> dict[int, str | None]:
    """Problem index -> answer after its chain, for the chains that are not None."""
    known = {problem_id: chain for problem_id, chain in enumerate(chains) if chain is not None}
    return dict(zip(known, questions.answers(list(known.values()), list(known)).answers, strict=True))


def _irrelevant_chain(questions: ChainQuestions, chain: Chain) -> Chain | None:
    """An irrelevant text as long as the chain; None for an empty chain."""
    words = [f" {word}" for word in questions.batch.wording.irrelevant.split()]
    return (repeated_to_length(words, questions, "".join(chain)),) if chain else None


def _chains_of_others(questions: ChainQuestions) -> list[Chain | None]:
    """For each problem, the chain of the next problem with a different answer; None where all answers are equal."""
    answers, n_problems = questions.with_chain.answers, len(questions.batch)
    chains: list[Chain | None] = []
    for problem_id in range(n_problems):
        others = [(problem_id + offset) % n_problems for offset in range(1, n_problems)]
        different = (questions.chains[other] for other in others if answers[other] != answers[problem_id])
        chains.append(next(different, None))
    return chains
