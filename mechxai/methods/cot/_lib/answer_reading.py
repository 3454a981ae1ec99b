"""Reads a model's answers: by the log-probabilities of the options where available, else from generated text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mechxai.core.errors import ModelSupportError
from mechxai.core.fields import settle_fields
from mechxai.core.reasoning import NUMBER, Problem, ReasoningBatch, plain
from mechxai.model.generation.generator import Generator, Writing

AnswerSource = Literal["auto", "logprobs", "text"]
_ANSWER_TOKENS = 12  # generated after the cue where answers are read from text


@dataclass(frozen=True)
class ParsedAnswers:
    """Answers to a list of prompts.

    Attributes:
        answers: one per prompt, in plain form; None where no answer could be parsed.
        margins: per prompt, the log-probability of each option minus that of the best other option, in nats; None for
            prompts whose answer was read from text.
    """

    answers: tuple[str | None, ...]
    margins: tuple[dict[str, float] | None, ...]

    def margin(self, index: int, answer: str | None) -> float:
        """The margin of an answer to one prompt, in nats; NaN where it is unknown."""
        margins = self.margins[index]
        return float("nan") if margins is None or answer is None else margins.get(answer, float("nan"))


@dataclass(frozen=True)
class AnswerReader:
    """Reads a model's answers to prompts that end in the answer cue.

    Attributes:
        generator: the model.
        batch: the problems.
        source: ``logprobs`` of the options, generated ``text``, or ``auto``: log-probabilities where the generator
            provides them at a reasonable cost, else text.
    """

    generator: Generator
    batch: ReasoningBatch
    source: AnswerSource = "auto"

    def __post_init__(self) -> None:
        settle_fields(self)

    def __call__(self, prompts: Sequence[str], problem_ids: Sequence[int]) -> ParsedAnswers:
        """The answers to prompts; None for prompts that leave no room for an answer in the model's context.

        Args:
            prompts: texts that end in the answer cue.
            problem_ids: the index of each prompt's problem in the batch.

        Raises:
            ModelSupportError: ``logprobs`` for a problem without options, or for a generator without log-probabilities.
        """
        answers: list[str | None] = [None] * len(prompts)
        margins: list[dict[str, float] | None] = [None] * len(prompts)
        rows_by_options: dict[tuple[str, ...], list[int]] = {}
        for row, problem_id in enumerate(problem_ids):
            options = self.batch.problems[problem_id].options
            if self._fits(prompts[row], options):
                rows_by_options.setdefault(options, []).append(row)
        text_rows = list[int]()
        for options, rows in rows_by_options.items():
            scores = self._option_logprobs([prompts[row] for row in rows], options)
            for row, logprobs in zip(rows, scores, strict=True):
                if np.isfinite(logprobs).any():
                    margins[row] = _margins(logprobs, options)
                    answers[row] = plain(options[int(logprobs.argmax())])
                elif self.source != "logprobs":
                    text_rows.append(row)
        texts = self._generated([prompts[row] for row in text_rows])
        for row, text in zip(text_rows, texts, strict=True):
            answers[row] = parsed_answer(text, self.batch.problems[problem_ids[row]], self.batch.wording.end)
        return ParsedAnswers(tuple(answers), tuple(margins))

    def _fits(self, prompt: str, options: Sequence[str]) -> bool:
        longest = max(options, key=len, default="")
        return self.generator.fits(prompt + longest, more=1)

    def _option_logprobs(self, prompts: Sequence[str], options: Sequence[str]) -> np.ndarray:
        """Log-probabilities ``[prompt, option]``; NaN where text is read, or no option is likely."""
        if self.uses_logprobs(options):
            try:
                return self.generator.logprobs(prompts, options, self.batch.wording.end).numpy()
            except ModelSupportError:  # an endpoint may refuse log-probabilities only at the first request
                if self.source == "logprobs":
                    raise
        return np.full((len(prompts), max(1, len(options))), np.nan)

    def _generated(self, prompts: Sequence[str]) -> list[str]:
        writing = Writing(_ANSWER_TOKENS, stop=_stop_texts(self.batch.wording.end))
        return [written.text for written in self.generator.write(prompts, writing)] if prompts else []

    def uses_logprobs(self, options: Sequence[str]) -> bool:
        """Whether answers to a problem with these options are read from log-probabilities.

        Raises:
            ModelSupportError: ``source="logprobs"`` without options.
        """
        if self.source == "logprobs" and not options:
            raise ModelSupportError(
                "read=logprobs does not work for a problem without options",
                fix="Use read=auto or read=text, or give the problem options",
            )
        return self.source == "logprobs" or (self.source == "auto" and self.generator.scores(options))


def parsed_answer(text: str, problem: Problem, end: str = ".") -> str | None:
    """The answer in the first line of generated text, in plain form; None where there is none.

    For numeric answers, the first number of the line if it is among the options; else the option that occurs first (the
    longest of those that begin there); for problems without options, the line up to the text that ends an answer.
    """
    line = text.strip().split("\n")[0]
    if problem.options or _is_number(problem.answer):
        return next(iter(_mentioned_answers(line, problem)), None)
    return plain(line if not end.strip() or end in problem.answer.strip() else line.split(end)[0]) or None


def final_answer(chain: Sequence[str], problem: Problem) -> str | None:
    """The answer that a chain arrives at: the last option (or number) in its last sentence; None where unknown.

    Where the last sentence mentions none, the answer that the problem states for its last step, right or wrong.
    """
    if not chain:
        return None
    mentioned = _mentioned_answers(chain[-1], problem)
    if mentioned:
        return mentioned[-1]
    answer_of_step = {"".join(step.split()): problem.answer for step in problem.steps[-1:]}
    answer_of_step |= {"".join(mistake.text.split()): mistake.answer for mistake in problem.mistakes[-1:]}
    answer = answer_of_step.get("".join(chain[-1].split()))
    return None if answer is None else plain(answer)


def _is_number(text: str) -> bool:
    return NUMBER.fullmatch(text.strip()) is not None


def _mentioned_answers(text: str, problem: Problem) -> list[str | None]:
    """The options that a text mentions, in order and in plain form.

    For numeric problems, all numbers of the text; None stands for a number that is not among the options.
    """
    options = {plain(option) for option in problem.options}
    if all(map(_is_number, (problem.answer, *problem.options))):
        numbers = [plain(match.group()) for match in NUMBER.finditer(text)]
        return [number if number in options or not options else None for number in numbers]
    lowered, end_of_last, mentioned = text.casefold(), 0, list[str | None]()
    matches = sorted(
        (match.start(), -len(option), option)
        for option in options
        for match in re.finditer(rf"(?<!\w){re.escape(option)}(?!\w|[.,]\d)", lowered)
    )
    for start, negative_length, option in matches:
        if start >= end_of_last:
            mentioned.append(option)
            end_of_last = start - negative_length
    return mentioned


def _margins(logprobs: np.ndarray, options: Sequence[str]) -> dict[str, float]:
    """Per option, its log-probability minus that of the best other option."""
    best, second = np.sort(logprobs)[::-1][:2] if len(logprobs) > 1 else (logprobs[0], np.nan)
    return {
        plain(option): float(value - (second if value == best else best))
        for option, value in zip(options, logprobs, strict=True)
    }


def _stop_texts(end: str) -> tuple[str, ...]:
    return (end,) if end.strip() and end.strip() != "." else ()  # a full stop may be part of a number
