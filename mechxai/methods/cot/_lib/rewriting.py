"""Steps rewritten: wrong, or in other words. By the task where it knows how, by a number changed, or by a model."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mechxai.core.errors import check_choice
from mechxai.core.reasoning import Problem, plain
from mechxai.model.generation.generator import Generator, Writing

HOW = ("task", "model")
_NUMBER = re.compile(r"\d+")
_MOST = 9  # by how much a number is changed
_ASKS = {
    "mistake": "Rewrite this sentence so that it says something wrong. Write only the new sentence.\n{step}\n",
    "rephrased": "Say this sentence in other words. Write only the new sentence.\n{step}\n",
}


@dataclass(frozen=True)
class Place:
    """A step of a chain: which problem's, which number, and what it says."""

    problem: int
    step: int
    text: str


def rewritten(
    kind: str, places: Sequence[Place], problems: Sequence[Problem], *, by: str, writer: Generator, seed: int
) -> list[str | None]:
    """Each step, wrong (``mistake``) or in other words (``rephrased``); None where nobody knows how.

    Args:
        kind: ``mistake`` or ``rephrased``.
        places: the steps.
        problems: of the batch.
        by: ``task``: as the problem itself has it where the step is its own; else, for mistakes, with its last number
            changed. ``model``: as ``writer`` writes it.
        writer: asked with ``by=model``.
        seed: of the changed numbers.
    """
    check_choice("by", by, HOW)
    if by == "task":
        return [_by_task(kind, place, problems[place.problem], seed=seed) for place in places]
    asked = [_ASKS[kind].format(step=place.text.strip()) for place in places]
    found = writer.write(asked, Writing(64, stop=("\n\n",), seed=seed))
    lines = [written.text.strip().splitlines() for written in found]
    changed = [f" {own[0].strip()}" if own else None for own in lines]
    return [
        None if text is None or same(text, place.text) else text for text, place in zip(changed, places, strict=True)
    ]


def same(one: str, other: str) -> bool:
    """Whether two steps say the same, but for spaces."""
    return "".join(one.split()) == "".join(other.split())


def _by_task(kind: str, place: Place, problem: Problem, *, seed: int) -> str | None:
    known = place.step < len(problem.steps) and same(problem.steps[place.step], place.text)
    if kind == "rephrased":
        return problem.rephrased[place.step] if known and problem.rephrased else None
    if known and problem.mistakes:
        return problem.mistakes[place.step].text
    return _other_number(place, problem, seed)


def _other_number(place: Place, problem: Problem, seed: int) -> str | None:
    """The step with its last number changed, to one of the options where these are numbers; None where it has none."""
    numbers = list(_NUMBER.finditer(place.text))
    if not numbers:
        return None
    rng, last = random.Random(f"{seed}/{place}"), numbers[-1]
    value = int(last.group())
    others = [other for other in range(max(0, value - _MOST), value + _MOST + 1) if other != value]
    options = {plain(option) for option in problem.options}
    others = [other for other in others if str(other) in options] or others
    return f"{place.text[: last.start()]}{rng.choice(others)}{place.text[last.end() :]}"
