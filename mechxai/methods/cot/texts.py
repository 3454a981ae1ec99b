"""What every result of this family says beside its numbers: texts, unread answers, whether a chain is needed."""

import numpy as np
import xarray as xr

from mechxai.core.result import variable
from mechxai.methods.cot.asking import Asking
from mechxai.methods.cot.reading import Read, plain
from mechxai.methods.record import bounded

_NAMES = {
    "question": "what was asked",
    "chain": "the chain of thought, a line per step",
    "answer_right": "the right answer",
    "answer_chain": "the answer with the chain",
    "answer_no_chain": "the answer without it",
}


def said(asking: Asking) -> dict[str, xr.DataArray]:
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


def parse_failures(asking: Asking, *reads: Read) -> dict[str, xr.DataArray]:
    """The share of all answers that could not be read, with an interval over readings."""
    every = (*reads, asking.with_chain, asking.without_chain)
    failed = np.array([answer is None for read in every for answer in read.answers], dtype=float)
    return bounded("parse_failures", (), failed, units="fraction", meaning="share of answers that could not be read")


def gate(data: xr.Dataset) -> tuple[str, ...]:
    """What a reader must know first: whether the chain does any good at all."""
    if float(data["gain_low"]) > 0:
        return ()
    gain = f"{float(data['gain']):+.0%} (95 % {float(data['gain_low']):+.0%} to {float(data['gain_high']):+.0%})"
    return (
        f"nothing to measure: the chain is not shown to raise the share of right answers ({gain}), so that the answers "
        "do not need it",
    )


def _shown(read: Read) -> list[str]:
    return [answer or "" for answer in read.answers]
