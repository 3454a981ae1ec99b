"""Texts and notes of every chain-of-thought result: questions, chains, parse failures, whether the chain helps."""

import numpy as np
import xarray as xr

from mechxai.core.reasoning import plain
from mechxai.core.result import variable
from mechxai.methods.cot._lib.answer_reading import ParsedAnswers
from mechxai.methods.cot._lib.questions import ChainQuestions
from mechxai.methods.result_parts import rates

_LOW_ACCURACY = 0.5
_MEANINGS = {
    "question": "the question",
    "chain": "the chain of thought, one line per step",
    "answer_right": "the correct answer",
    "answer_chain": "the answer with the chain",
    "answer_no_chain": "the answer without the chain",
}


def problem_texts(questions: ChainQuestions) -> dict[str, xr.DataArray]:
    """Questions, chains and answers as text variables, ``[prompt]``."""
    texts = {
        "question": [problem.question for problem in questions.problems],
        "chain": ["\n".join(step.strip() for step in chain) for chain in questions.chains],
        "answer_right": [plain(problem.answer) for problem in questions.problems],
        "answer_chain": _texts(questions.with_chain),
        "answer_no_chain": _texts(questions.without_chain),
    }
    return {
        name: variable(("prompt",), np.array(values, dtype=str), "text", _MEANINGS[name])
        for name, values in texts.items()
    }


def parse_failures(*questions: ChainQuestions) -> dict[str, xr.DataArray]:
    """``parse_failures``, the share of all answers so far that could not be parsed, those of controls included."""
    shares = np.mean([each.parse_failures() for each in questions], axis=0)
    return rates("parse_failures", (), shares, meaning="share of answers that could not be parsed")


def notes(questions: ChainQuestions, data: xr.Dataset) -> tuple[str, ...]:
    """Notes on whether the chain helps at all, and on how many chains were cut off."""
    return (*_gain_note(data), *truncation_note(questions))


def truncation_note(*questions: ChainQuestions) -> tuple[str, ...]:
    """A note on the share of chains that were cut off at ``max_tokens``; empty where none was."""
    share = float(np.mean([each.truncated_share() for each in questions]))
    if not share:
        return ()
    return (f"{share:.0%} of the chains were cut off at max_tokens={questions[0].max_tokens}: raise it",)


def _gain_note(data: xr.Dataset) -> tuple[str, ...]:
    gain, low, high = (float(data[f"gain{end}"]) for end in ("", "_low", "_high"))
    if low > 0:
        return ()
    change = f"{gain:+.0%} accuracy (95 % {low:+.0%} to {high:+.0%})"
    with_chain, without_chain = float(data["accuracy"]), float(data["accuracy_no_chain"])
    if high > 0 and gain > 0:
        return (f"the chain is not shown to help: {change}; use more problems before interpreting the result",)
    if max(with_chain, without_chain) < _LOW_ACCURACY:
        return (f"nothing to measure: accuracy is low with the chain ({with_chain:.0%}) and without it; {change}",)
    return (f"nothing to measure: accuracy is as high without the chain ({without_chain:.0%}); {change}",)


def _texts(parsed: ParsedAnswers) -> list[str]:
    return [answer or "" for answer in parsed.answers]
