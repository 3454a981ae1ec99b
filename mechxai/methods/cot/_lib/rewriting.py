"""Rewrites steps of a chain with a mistake or in other words, by the task's own variants or by a model."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mechxai.core.errors import check_choice
from mechxai.core.reasoning import Problem, plain
from mechxai.model.generation.generator import Generator, Writing

StepRewriter = Literal["task", "model"]
RewriteKind = Literal["mistake", "rephrased"]
_NUMBER = re.compile(r"\d+")
_LARGEST_CHANGE = 9  # of a number that is replaced by a wrong one
_INSTRUCTIONS = {
    "mistake": "Rewrite this sentence so that it says something wrong. Write only the new sentence.\n{step}\n",
    "rephrased": "Say this sentence in other words. Write only the new sentence.\n{step}\n",
}


@dataclass(frozen=True)
class ChainStep:
    """One step of one problem's chain.

    Attributes:
        problem: index of the problem in the batch.
        index: position of the step in the chain, from 0.
        text: the step's sentence.
    """

    problem: int
    index: int
    text: str


def rewritten_steps(
    kind: RewriteKind,
    steps: Sequence[ChainStep],
    problems: Sequence[Problem],
    *,
    by: StepRewriter,
    writer: Generator,
    seed: int,
) -> list[str | None]:
    """Each step with a mistake (``mistake``) or in other words (``rephrased``); None where no rewriting is known.

    Args:
        kind: ``mistake`` or ``rephrased``.
        steps: the steps to rewrite.
        problems: of the batch.
        by: ``task``: the problem's own variant where the step is the problem's own; for other mistakes, the step with
            its last number changed. ``model``: as ``writer`` rewrites it.
        writer: the model used with ``by=model``.
        seed: of the changed numbers and of the model's text.

    Raises:
        ConfigError: an unknown ``by``.
    """
    check_choice("by", by, get_args(StepRewriter))
    if by == "task":
        return [_by_task(kind, step, problems[step.problem], seed=seed) for step in steps]
    prompts = [_INSTRUCTIONS[kind].format(step=step.text.strip()) for step in steps]
    outputs = writer.write(prompts, Writing(64, stop=("\n\n",), seed=seed))
    lines = [written.text.strip().splitlines() for written in outputs]
    texts = [f" {output_lines[0].strip()}" if output_lines else None for output_lines in lines]
    return [
        None if text is None or same_text(text, step.text) else text for text, step in zip(texts, steps, strict=True)
    ]


def same_text(first: str, second: str) -> bool:
    """Whether two steps are equal up to white space."""
    return "".join(first.split()) == "".join(second.split())


def _by_task(kind: RewriteKind, step: ChainStep, problem: Problem, *, seed: int) -> str | None:
    is_own_step = step.index < len(problem.steps) and same_text(problem.steps[step.index], step.text)
    if kind == "rephrased":
        return problem.rephrased[step.index] if is_own_step and problem.rephrased else None
    if is_own_step and problem.mistakes:
        return problem.mistakes[step.index].text
    return _with_wrong_number(step, problem, seed)


def _with_wrong_number(step: ChainStep, problem: Problem, seed: int) -> str | None:
    """The step with its last number changed, to one of the options where these are numbers; None without a number."""
    numbers = list(_NUMBER.finditer(step.text))
    if not numbers:
        return None
    # the seed's text is fixed, so that the numbers drawn for a step never change between versions
    rng = random.Random(f"{seed}/Place(problem={step.problem}, step={step.index}, text={step.text!r})")
    last = numbers[-1]
    value = int(last.group())
    candidates = [
        other for other in range(max(0, value - _LARGEST_CHANGE), value + _LARGEST_CHANGE + 1) if other != value
    ]
    options = {plain(option) for option in problem.options}
    candidates = [other for other in candidates if str(other) in options] or candidates
    return f"{step.text[: last.start()]}{rng.choice(candidates)}{step.text[last.end() :]}"
