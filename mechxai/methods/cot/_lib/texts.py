"""What every result of this family says beside its numbers: texts, unread answers, whether a chain is needed."""

import numpy as np
import xarray as xr

from mechxai.core.reasoning import plain
from mechxai.core.result import variable
from mechxai.methods.cot._lib.answer_reading import ParsedAnswer
from mechxai.methods.cot._lib.questions import ChainQuestions
from mechxai.methods.result_parts import rates

_MOSTLY = 0.5
_NAMES = {
    "question": "what was asked",
    "chain": "the chain of thought, a line per step",
    "answer_right": "the right answer",
    "answer_chain": "the answer with the chain",
    "answer_no_chain": "the answer without it",
}


def said(asking: ChainQuestions) -> dict[str, xr.DataArray]:
    """Questions, chains and answers, as texts."""
    texts = {
        "question": [problem.question for problem in asking.problems],
        "chain": ["\n".join(step.strip() for step in steps) for steps in asking.chains],
        "answer_right": [plain(problem.answer) for problem in asking.problems],
        "answer_chain": _shown(asking.with_chain),
        "answer_no_chain": _shown(asking.without_chain),
    }
    return {
        name: variable(("prompt",), np.array(values, dtype=str), "text", _NAMES[name]) for name, values in texts.items()
    }


def parse_failures(*askings: ChainQuestions) -> dict[str, xr.DataArray]:
    """The share of all answers so far that could not be read, controls and drawn ones among them."""
    meaning = "share of answers that could not be read"
    unread = np.mean([asking.unread() for asking in askings], axis=0)
    return rates("parse_failures", (), unread, meaning=meaning)


def notes(asking: ChainQuestions, data: xr.Dataset) -> tuple[str, ...]:
    """What a reader must know first: whether the chain does any good at all, and how many had no room to end."""
    return (*_gate(data), *cut_short(asking))


def cut_short(*askings: ChainQuestions) -> tuple[str, ...]:
    """How much of what was written had no room to end."""
    short = float(np.mean([asking.cut_short() for asking in askings]))
    return (f"{short:.0%} of the chains were cut off at max_tokens={askings[0].max_tokens}: raise it",) if short else ()


def _gate(data: xr.Dataset) -> tuple[str, ...]:
    gain, low, high = (float(data[f"gain{end}"]) for end in ("", "_low", "_high"))
    if low > 0:
        return ()
    said = f"{gain:+.0%} right answers (95 % {low:+.0%} to {high:+.0%})"
    right, unaided = float(data["accuracy"]), float(data["accuracy_no_chain"])
    if high > 0 and gain > 0:
        return (f"the chain is not shown to help: {said}; ask more problems before reading on",)
    if max(right, unaided) < _MOSTLY:
        return (f"nothing to measure: the model is wrong with the chain ({right:.0%} right) and without; {said}",)
    return (f"nothing to measure: answers are as good without the chain ({unaided:.0%} right); {said}",)


def _shown(read: ParsedAnswer) -> list[str]:
    return [answer or "" for answer in read.answers]
