"""How answers are read: by the probabilities of the options where a model gives them, else from what it writes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mechxai.core.errors import ModelSupportError, check_choice
from mechxai.core.reasoning import NUMBER, Problem, ReasoningBatch, plain
from mechxai.model.generation.generator import Generator, Writing

READS = ("auto", "logprobs", "text")
_ANSWER_TOKENS = 12  # written behind the cue where answers are read from text


@dataclass(frozen=True)
class ParsedAnswer:
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

    def __call__(self, prompts: Sequence[str], of: Sequence[int]) -> ParsedAnswer:
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
            options = self.batch.problems[problem].options
            if self._fits(prompts[number], options):
                by_options.setdefault(options, []).append(number)
        texts = list[int]()
        for options, numbers in by_options.items():
            rows = self._scores([prompts[number] for number in numbers], options)
            for number, row in zip(numbers, rows, strict=True):
                if np.isfinite(row).any():
                    margins[number] = _margins(row, options)
                    answers[number] = plain(options[int(row.argmax())])
                elif self.how != "logprobs":
                    texts.append(number)
        said = self._said([prompts[number] for number in texts])
        for number, text in zip(texts, said, strict=True):
            answers[number] = parsed(text, self.batch.problems[of[number]], self.batch.wording.end)
        return ParsedAnswer(tuple(answers), tuple(margins))

    def _fits(self, prompt: str, options: Sequence[str]) -> bool:
        longest = max(options, key=len, default="")
        return self.generator.fits(prompt + longest, more=1)

    def _scores(self, prompts: Sequence[str], options: Sequence[str]) -> np.ndarray:
        """Log-probabilities ``[prompt, option]``; NaN where texts are to be read, or where they tell nothing."""
        if self.by_logprobs(options):
            try:
                return self.generator.logprobs(prompts, options, self.batch.wording.end).numpy()
            except ModelSupportError:  # seen with the first request
                if self.how == "logprobs":
                    raise
        return np.full((len(prompts), max(1, len(options))), np.nan)

    def _said(self, prompts: Sequence[str]) -> list[str]:
        writing = Writing(_ANSWER_TOKENS, stop=_ends(self.batch.wording.end))
        return [written.text for written in self.generator.write(prompts, writing)] if prompts else []

    def by_logprobs(self, options: Sequence[str]) -> bool:
        """Whether answers to such a problem are read from log-probabilities.

        Raises:
            ModelSupportError: ``how=logprobs`` without options.
        """
        if self.how == "logprobs" and not options:
            raise ModelSupportError(
                "read=logprobs was asked", got="a problem without options", fix="read=auto or text, or give options"
            )
        return self.how == "logprobs" or (self.how == "auto" and self.generator.scores(options))


def parsed(text: str, problem: Problem, end: str = ".") -> str | None:
    """The answer in the first line written behind the cue, in plain form; None where there is none.

    Where answers are numbers, the line's first number, if it is among the options; else the option that stands first
    (the longest of those that begin there); without options, the line up to what ends an answer.
    """
    line = text.strip().split("\n")[0]
    if problem.options or _is_number(problem.answer):
        return next(iter(_mentioned(line, problem)), None)
    return plain(line if not end.strip() or end in problem.answer.strip() else line.split(end)[0]) or None


def last_value(steps: Sequence[str], problem: Problem) -> str | None:
    """The answer that a chain ends in: the option (or the number) named last in its last sentence.

    Where that names none, what the problem itself says follows from such a last step, right or wrong.
    """
    if not steps:
        return None
    named = _mentioned(steps[-1], problem)
    if named:
        return named[-1]
    known = {"".join(step.split()): problem.answer for step in problem.steps[-1:]}
    known |= {"".join(mistake.text.split()): mistake.answer for mistake in problem.mistakes[-1:]}
    found = known.get("".join(steps[-1].split()))
    return None if found is None else plain(found)


def _is_number(text: str) -> bool:
    return NUMBER.fullmatch(text.strip()) is not None


def _mentioned(text: str, problem: Problem) -> list[str | None]:
    """Options in the order in which a text names them, in plain form; numbers where answers are, None for no option."""
    options = {plain(option) for option in problem.options}
    if all(map(_is_number, (problem.answer, *problem.options))):
        numbers = [plain(match.group()) for match in NUMBER.finditer(text)]
        return [number if number in options or not options else None for number in numbers]
    low, taken, found = text.casefold(), 0, list[str | None]()
    named = sorted(
        (match.start(), -len(option), option)
        for option in options
        for match in re.finditer(rf"(?<!\w){re.escape(option)}(?!\w|[.,]\d)", low)
    )
    for start, length, option in named:
        if start >= taken:
            found.append(option)
            taken = start - length
    return found


def _margins(row: np.ndarray, options: Sequence[str]) -> dict[str, float]:
    best, second = np.sort(row)[::-1][:2] if len(row) > 1 else (row[0], np.nan)
    return {
        plain(option): float(value - (second if value == best else best))
        for option, value in zip(options, row, strict=True)
    }


def _ends(end: str) -> tuple[str, ...]:
    return (end,) if end.strip() and end.strip() != "." else ()  # a full stop may stand within a number
