"""Drawing until enough examples fit a model's tokenizer; the others are counted by reason, not dropped in silence."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from mechxai.core.errors import AlignmentError, ConfigError

_TRIES_EACH = 20
T = TypeVar("T")


@dataclass(frozen=True)
class DrawRequest:
    """What a task was asked for.

    Attributes:
        name: of the task; with the seed it decides the draws.
        n: examples.
        seed: of the draws.
        model: the name of the model.
        instead: what to use where too few fit.
    """

    name: str
    n: int
    seed: int
    model: str
    instead: str


def fitting(
    asked: DrawRequest, draw: Callable[[random.Random, int], T], misfit: Callable[[T], str | None]
) -> tuple[list[T], dict[str, int]]:
    """As many examples as were asked for, and how many did not fit, by reason.

    Args:
        asked: how many of what.
        draw: makes the example of a turn, from 0 to ``n - 1``; asked again for the same turn when one does not fit.
        misfit: why an example does not fit the model, None where it does.

    Raises:
        ConfigError: fewer than one was asked for.
        AlignmentError: too few fit; says why.
    """
    if asked.n < 1:
        raise ConfigError(f"{asked.name}: n={asked.n} prompts were asked", allowed="1 or more")
    rng, found, dropped = random.Random(f"{asked.name}/{asked.seed}"), list[T](), Counter[str]()
    for _ in range(asked.n * _TRIES_EACH):
        example = draw(rng, len(found))
        reason = misfit(example)
        if reason:
            dropped[reason] += 1
        else:
            found.append(example)
        if len(found) == asked.n:
            return found, dict(dropped)
    raise AlignmentError(
        f"{asked.name}: {asked.n} prompts were asked for {asked.model}",
        got=f"{len(found)} fit its tokenizer; dropped: {dict(dropped)}",
        fix=f"{'ask for fewer' if found else 'ask another model'}, or use {asked.instead} with your own",
    )
