"""Rejection sampling: draw examples until enough fit a model's tokenizer, and count the others by reason."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from mechxai.core.counts import check_n
from mechxai.core.errors import AlignmentError

_TRIES_EACH = 20
T = TypeVar("T")


@dataclass(frozen=True)
class DrawRequest:
    """The examples to draw for a task.

    Attributes:
        name: of the task; with the seed it determines the draws.
        n: number of examples.
        seed: of the draws.
        model: name of the model.
        alternative: the function to use with prompts of one's own if too few examples fit.
    """

    name: str
    n: int
    seed: int
    model: str
    alternative: str


def fitting_examples(
    request: DrawRequest, draw: Callable[[random.Random, int], T], misfit: Callable[[T], str | None]
) -> tuple[list[T], dict[str, int]]:
    """The requested number of examples, and the number of rejected ones by reason.

    Args:
        request: the task, the number of examples and the seed.
        draw: draws the example with a given number, from 0 to ``n - 1``; called again for the same number after a
            misfit.
        misfit: the reason why an example does not fit the model, or None.

    Raises:
        ConfigError: ``n`` below 1 or above a million.
        AlignmentError: too few examples fit; the message gives the reasons.
    """
    check_n(request.name, request.n)
    rng, examples, dropped = random.Random(f"{request.name}/{request.seed}"), list[T](), Counter[str]()
    for _ in range(request.n * _TRIES_EACH):
        example = draw(rng, len(examples))
        reason = misfit(example)
        if reason:
            dropped[reason] += 1
        else:
            examples.append(example)
        if len(examples) == request.n:
            return examples, dict(dropped)
    reasons = ", ".join(f"{count} ({reason})" for reason, count in dropped.most_common())
    raise AlignmentError(
        f"{request.name}: {len(examples)} of {request.n} prompts fit the tokenizer of {request.model}; "
        f"dropped: {reasons}",
        fix=f"Use {'fewer prompts' if examples else 'another model'}, or {request.alternative} with your own prompts",
    )
