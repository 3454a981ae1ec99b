"""How answers are read: by the probabilities of the options where a model gives them, else from what it writes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mechxai.core.errors import ModelSupportError, check_choice
from mechxai.core.reasoning import Problem, ReasoningBatch
from mechxai.model.generator import Generator, Writing

READS = ("auto", "logprobs", "text")
_ANSWER_TOKENS = 12  # written behind the cue where answers are read from text
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class Read:
    """Answers as they were read.

    Attributes:
        answers: one per prompt, in plain form; None where none could be read.
        margins: per prompt and option, by how much (nats) the option's log-probability exceeds the best other one;
            None for prompts read from text.
    """

    answers: tuple[str | None, ...]
    margins: tuple[dict[str, float] | None, ...]

    def margin(self, number: int, answer: str | None) -> float:
        """By how much an answer is preferred behind a prompt; NaN where it is not known."""
        known = self.margins[number]
        return float("nan") if known is None or answer is None else known.get(answer, float("nan"))


@dataclass(frozen=True)
class Reader:
    """Reads the answers behind prompts.

    Attributes:
        generator: the model.
        batch: the problems.
        how: ``logprobs``, ``text``, or ``auto``: log-probabilities where the generator says that they are worth asking.
    """

    generator: Generator
    batch: ReasoningBatch
    how: str = "auto"

    def __post_init__(self) -> None:
        check_choice("read", self.how, READS)

    def __call__(self, prompts: Sequence[str], of: Sequence[int]) -> Read:
        """The answers behind prompts, which end in the cue; none behind those that leave no room for one.

        Args:
            prompts: the texts.
            of: the number of each one's problem.

        Raises:
            ModelSupportError: ``logprobs`` of a problem without options, or of a generator that gives none.
        """
        answers: list[str | None] = [None] * len(prompts)
        margins: list[dict[str, float] | None] = [None] * len(prompts)
        by_options: dict[tuple[str, ...], list[int]] = {}
        for number, problem in enumerate(of):
            if not self.generator.fits(prompts[number]):
                continue
            by_options.setdefault(self.batch.problems[problem].options, []).append(number)
        for options, numbers in by_options.items():
            asked = [prompts[number] for number in numbers]
            if self.by_logprobs(options):
                for number, row in zip(numbers, self.generator.logprobs(asked, options).numpy(), strict=True):
                    margins[number] = _margins(row, options)
                    answers[number] = plain(options[int(row.argmax())])
            else:
                writing = Writing(_ANSWER_TOKENS, stop=("\n", *_ends(self.batch.wording.end)))
                for number, text in zip(numbers, self.generator.write(asked, writing), strict=True):
                    answers[number] = parsed(text, self.batch.problems[of[number]])
        return Read(tuple(answers), tuple(margins))

    def by_logprobs(self, options: Sequence[str]) -> bool:
        """Whether answers to such a problem are read from log-probabilities."""
        if self.how == "logprobs" and not options:
            raise ModelSupportError(
                "read=logprobs was asked", got="a problem without options", fix="read=auto or text, or give options"
            )
        return self.how == "logprobs" or (self.how == "auto" and self.generator.scores(options))


def plain(answer: str) -> str:
    """An answer as it is compared: without spaces and marks around it, in small letters."""
    return answer.strip().strip(".,;:!?\"'").strip().casefold()


def parsed(text: str, problem: Problem) -> str | None:
    """The answer in a text written behind the cue, in plain form; None where there is none.

    Of the problem's options the one that stands first (the longest of those that begin there); without options the
    first number where the right answer is one, else the whole text.
    """
    if problem.options:
        found = [
            (match.start(), -len(option), plain(option))
            for option in problem.options
            if (match := re.search(rf"(?<!\w){re.escape(plain(option))}(?!\w)", text.casefold()))
        ]
        return min(found)[2] if found else None
    if _NUMBER.fullmatch(problem.answer.strip()):
        number = _NUMBER.search(text)
        return plain(number.group().replace(",", "")) if number else None
    return plain(text) or None


def last_value(steps: Sequence[str], problem: Problem) -> str | None:
    """The answer that a chain ends in: the option (or the number) named last in its last sentence."""
    if not steps:
        return None
    words = re.findall(r"[\w().-]+", steps[-1].casefold())
    known = {plain(option) for option in problem.options}
    for word in reversed([plain(word) for word in words]):
        if word in known or (not known and _NUMBER.fullmatch(word)):
            return word
    return None


def _margins(row: np.ndarray, options: Sequence[str]) -> dict[str, float]:
    best, second = np.sort(row)[::-1][:2] if len(row) > 1 else (row[0], np.nan)
    return {
        plain(option): float(value - (second if value == best else best))
        for option, value in zip(options, row, strict=True)
    }


def _ends(end: str) -> tuple[str, ...]:
    return (end,) if end.strip() and end.strip() != "." else ()  # a full stop may stand within a number
