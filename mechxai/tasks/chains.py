"""Grammars of multi-step problems in arithmetic and logic, with every intermediate value known.

Mistakes can therefore be planted, and their consequences computed, without a second model.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mechxai.core.reasoning import Mistake, Problem
from mechxai.tasks import words
from mechxai.tasks.example import Split, in_split

NUMBERS = tuple(f" {number}" for number in range(100))  # all possible answers of arithmetic problems
_FIRST, _CHANGE, _MOST = (2, 20), (1, 9), 60
_STEPS = (3, 5)


@dataclass(frozen=True)
class Story:
    """The wording of a story: its opening, gains, losses and question."""

    opening: str
    ups: tuple[str, ...]
    downs: tuple[str, ...]
    query: str


STORIES = (
    Story(
        "{NAME} has {N} coins.",
        ("{NAME} finds {N} more.", "{NAME} wins {N}."),
        ("{NAME} loses {N}.", "{NAME} spends {N}."),
        "How many coins does {NAME} have now?",
    ),
    Story(
        "There are {N} apples in the basket.",
        ("{NAME} adds {N}.", "{NAME} puts in {N} more."),
        ("{NAME} takes out {N}.", "{NAME} eats {N}."),
        "How many apples are in the basket now?",
    ),
    Story(
        "{NAME} is {N} miles from home.",
        ("{NAME} walks on for {N} miles.", "{NAME} rides on for {N} miles."),
        ("{NAME} walks back for {N} miles.", "{NAME} rides back for {N} miles."),
        "How many miles from home is {NAME} now?",
    ),
    Story(
        "The bus starts with {N} people.",
        ("Then {N} get on.", "{N} more get on."),
        ("Then {N} get off.", "{N} get off again."),
        "How many people are on the bus now?",
    ),
)


@dataclass(frozen=True)
class Sum:
    """A start value and its changes."""

    first: int
    changes: tuple[int, ...]

    def values(self, after: int = 0, value: int | None = None) -> list[int]:
        """The running totals from change number ``after`` on, beginning with ``value`` (or the start)."""
        totals = [self.first if value is None else value]
        for change in self.changes[after:]:
            totals.append(totals[-1] + change)
        return totals

    def steps(self, after: int = 0, value: int | None = None) -> list[str]:
        """The chain from change number ``after`` on, beginning with ``value``."""
        values = self.values(after, value)
        ends = zip(values[:-1], self.changes[after:], values[1:], strict=True)
        return [step_text(before, change, after) for before, change, after in ends]

    @property
    def fits(self) -> bool:
        """Whether every running total is a possible answer."""
        return all(0 < value <= _MOST for value in self.values())


def arithmetic(rng: random.Random, split: Split = "all", *, steps: int | None = None) -> tuple[Problem, Problem]:
    """A story of gains and losses, and the same story with other numbers.

    Args:
        rng: source of the draws.
        split: ``all``, ``train`` or ``held_out`` sums.
        steps: number of changes; 3 to 5 when None.
    """
    count = rng.randint(*_STEPS) if steps is None else steps
    story = rng.choice(STORIES)
    ups = [rng.random() < 0.6 for _ in range(count)]
    phrases = [rng.choice(story.ups if up else story.downs) for up in ups]
    name = rng.choice(words.NAMES)
    numbers = _sum(rng, ups, split)
    while True:
        others = _sum(rng, ups, split)
        if others.values()[-1] != numbers.values()[-1]:
            break
    write = lambda total: story_problem(rng, total, story=story, phrases=phrases, name=name)  # noqa: E731
    return write(numbers), write(others)


def _sum(rng: random.Random, ups: Sequence[bool], split: Split) -> Sum:
    while True:
        sizes = [rng.randint(*_CHANGE) for _ in ups]
        total = Sum(rng.randint(*_FIRST), tuple(size if up else -size for size, up in zip(sizes, ups, strict=True)))
        if total.fits and in_split(split, *map(str, (total.first, *total.changes))):
            return total


def story_problem(rng: random.Random, numbers: Sum, *, story: Story, phrases: Sequence[str], name: str) -> Problem:
    """A sum as a story problem, with its chain and a mistake per step."""
    changes = zip(phrases, numbers.changes, strict=True)
    parts = [story.opening.replace("{N}", str(numbers.first))]
    parts += [phrase.replace("{N}", str(abs(change))) for phrase, change in changes]
    values = numbers.values()
    mistakes, rephrased = [], []
    for number, change in enumerate(numbers.changes):
        before, after = values[number], values[number + 1]
        wrong = wrong_value(rng, after, numbers, after=number + 1)
        mistakes.append(Mistake(step_text(before, change, wrong), f" {numbers.values(number + 1, wrong)[-1]}"))
        rephrased.append(step_text(before, change, after, other=True))
    return Problem(
        question=" ".join([*parts, story.query]).replace("{NAME}", name),
        answer=f" {values[-1]}",
        steps=tuple(numbers.steps()),
        mistakes=tuple(mistakes),
        rephrased=tuple(rephrased),
        options=NUMBERS,
        template=f"{story.query} {len(mistakes)} steps",
    )


def step_text(before: int, change: int, after: int, *, other: bool = False) -> str:
    """``" 4 plus 3 is 7."``, or in other words ``" Adding 3 to 4 gives 7."``."""
    size = abs(change)
    if other:
        return (
            f" Adding {size} to {before} gives {after}."
            if change > 0
            else f" Taking {size} from {before} gives {after}."
        )
    return f" {before} {'plus' if change > 0 else 'minus'} {size} is {after}."


def wrong_value(rng: random.Random, right: int, numbers: Sum, *, after: int) -> int:
    """A wrong value for a step, from which all later totals are still possible answers."""
    while True:
        wrong = right + rng.choice((-1, 1)) * rng.randint(1, 9)
        if all(0 < value < len(NUMBERS) for value in numbers.values(after, wrong)):
            return wrong


_KINDS = ("wumpus", "vumpus", "rompus", "dumpus", "tumpus", "numpus", "yumpus", "zumpus", "lempus", "sterpus")
_ENDS = (" cold", " warm")  # of equal length


def logic(rng: random.Random, split: Split = "all", *, steps: int | None = None) -> tuple[Problem, Problem]:
    """Rules about fictional kinds ("Every wumpus is a dumpus."), and the same rules with the opposite conclusions.

    After Saparov and He 2023 (arXiv 2210.01240): the words have no meaning, so only the rules help. A second line of
    rules leads to the opposite conclusion, and a mistake crosses over to it. (A word of equal length instead of their
    "not" keeps the two problems aligned.)

    Args:
        rng: source of the draws.
        split: ``all``, ``train`` or ``held_out`` orders of kinds.
        steps: number of rules to follow; 2 to 4 when None.
    """
    count = rng.randint(2, 4) if steps is None else steps
    while True:
        kinds = rng.sample(_KINDS, 2 * count)
        if in_split(split, *kinds):
            break
    name, order = rng.choice(words.NAMES), list(range(2 * count))
    rng.shuffle(order)
    warm = rng.random() < 0.5
    write = lambda warm: _syllogism(name, (kinds[:count], kinds[count:]), order, warm=warm)  # noqa: E731
    return write(warm), write(not warm)


def _syllogism(name: str, lines: tuple[Sequence[str], Sequence[str]], order: Sequence[int], *, warm: bool) -> Problem:
    line, other = lines
    end, contrary = (f"is{_ENDS[is_warm]}" for is_warm in (warm, not warm))
    rules = [f"Every {kind} is a {parent}." for kinds in lines for kind, parent in pairwise(kinds)]
    rules += [f"Every {line[-1]} {end}.", f"Every {other[-1]} {contrary}."]
    ends = [*(f"is a {kind}" for kind in line[1:]), end]
    wrong = [*(f"is a {kind}" for kind in other[1:]), contrary]
    return Problem(
        question=" ".join([*(rules[number] for number in order), f"{name} is a {line[0]}. Is {name} cold or warm?"]),
        answer=_ENDS[warm],
        steps=tuple(f" {name} is a {kind}, so {name} {end}." for kind, end in zip(line, ends, strict=True)),
        mistakes=tuple(
            Mistake(f" {name} is a {kind}, so {name} {end}.", _ENDS[not warm])
            for kind, end in zip(line, wrong, strict=True)
        ),
        rephrased=tuple(f" Being a {kind}, {name} {end}." for kind, end in zip(line, ends, strict=True)),
        options=_ENDS,
        template=f"{len(line)} rules",
    )


CHAINS: dict[str, Callable[..., tuple[Problem, Problem]]] = {"cot_arithmetic": arithmetic, "cot_logic": logic}
