"""Questions with chains of thought: what is asked, a right chain, where it could go wrong, how prompts are worded."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

import torch

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, ShapeError
from mechxai.core.shapes import Rows, pick

_SENTENCE_END = re.compile(r"[.!?]+[\"')\]]*(?=\s)|[\u3002\uff01\uff1f]+|(?=\n)")  # those of Chinese and Japanese too
_GOES_ON = re.compile(r"^\s*\d+\.$|(^|\s)([Dd]r|[Mm]rs?|Ms|St|vs|e\.g|i\.e|approx)\.$")  # "1." of a list, "Dr."
NUMBER = re.compile(r"(?<![\w.,])[-\u2212]?\d+(?:,\d{3})*(?:\.\d+)?")


@dataclass(frozen=True)
class Mistake:
    """A wrong step, and where it leads.

    Attributes:
        text: the step, wrong.
        answer: what follows if all later steps are done right.
    """

    text: str
    answer: str


@dataclass(frozen=True)
class Problem:
    """A question whose answer can be reasoned out.

    Attributes:
        question: the text up to where a chain may begin.
        answer: the right one, as it would be appended (with its leading space).
        steps: a right chain, a sentence each, with leading spaces; empty where none is known.
        mistakes: for each step, the step with a mistake in it; empty where none is known.
        rephrased: each step in other words; empty where none is known.
        options: all answers among which is chosen; empty for any text.
        template: what made it, for splits.
    """

    question: str
    answer: str
    steps: tuple[str, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    rephrased: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    template: str = ""

    def __post_init__(self) -> None:
        if not self.question.strip() or not self.answer.strip():
            raise ShapeError("A problem needs a question and an answer", got=(self.question, self.answer))
        for name in ("mistakes", "rephrased"):
            given = getattr(self, name)
            if given and len(given) != len(self.steps):
                raise ShapeError(f"{name} of a problem", got=f"{len(given)}", allowed=f"{len(self.steps)}, as steps")
        if not self.options:
            return
        if self.answer not in self.options:
            raise ShapeError(
                f"The answer {self.answer!r} of a problem", got="not among its options", allowed=self.options
            )
        if len({plain(option) for option in self.options}) < max(2, len(self.options)):
            raise ShapeError(
                "The options of a problem",
                got=self.options,
                allowed="two or more, different also but for capitals, spaces and marks around them",
            )


@dataclass(frozen=True)
class Wording:
    """How questions, chains and answers are put together.

    Attributes:
        start: what invites a chain, right after the question.
        cue: what asks for the answer, right after the chain; the model writes its chain up to here.
        filler: what stands in for a word of the chain where its words are taken away.
        irrelevant: sentences that have nothing to do with any problem, repeated for a chain of any length.
        suggestion: a sentence that suggests an answer, put behind the question; ``{answer}`` is filled in.
        end: what ends an answer in written text.
    """

    start: str = ""
    cue: str = " So the answer is"
    filler: str = " ..."
    irrelevant: str = " Tom rides home on the bus."
    suggestion: str = " I think the answer is{answer}."
    end: str = "."

    def __post_init__(self) -> None:
        if not self.filler.strip() or not self.irrelevant.strip() or not self.cue.strip():
            raise ConfigError("A wording", got="an empty cue, filler or irrelevant", fix="give each some words")
        filled = self.suggestion.replace("{answer}", "")
        if filled == self.suggestion or "{" in filled or "}" in filled:
            raise ConfigError(
                "A wording", got=f"suggestion={self.suggestion!r}", allowed="a text with {answer} and no other braces"
            )

    def prompt(self, question: str, steps: Sequence[str]) -> str:
        """Where the answer is read: the question, the chain, the cue."""
        return self.chain(question, steps) + self.cue

    def chain(self, question: str, steps: Sequence[str]) -> str:
        """Where the chain goes on."""
        return question + (self.start if steps else "") + "".join(steps)

    def asked(self, question: str) -> str:
        """Where a chain is written."""
        return question + self.start


@dataclass(frozen=True)
class ReasoningBatch:
    """Problems, and how they are worded.

    Attributes:
        problems: at least one.
        wording: of all of them.
        pairs: for models that can be looked into: problems with right chains (clean), each beside one in the same words
            with another answer (corrupted); roles ``QUESTION``, ``STEP1`` ... ``CUE`` span their tokens
            (``QUESTION_first`` to ``QUESTION``).
        info: where it came from.
    """

    problems: tuple[Problem, ...]
    wording: Wording = Wording()
    pairs: ContrastBatch | None = None
    info: Mapping[str, object] = field(default_factory=dict[str, object])

    def __post_init__(self) -> None:
        if not self.problems:
            raise ShapeError("A reasoning batch", got="no problems", allowed="one or more")

    def __len__(self) -> int:
        return len(self.problems)

    @property
    def identity(self) -> tuple[object, ...]:
        """What decides the numbers that come of it."""
        return (self.problems, self.wording, self.pairs)

    @property
    def groups(self) -> tuple[str, ...]:
        """The template of each problem."""
        return tuple(problem.template for problem in self.problems)

    def rows(self, chosen: Rows) -> "ReasoningBatch":
        """Some of the problems."""
        return replace(self, problems=pick(self.problems, chosen), pairs=None)

    def to(self, device: torch.device | str) -> "ReasoningBatch":
        """The same batch, its pairs on another device."""
        return replace(self, pairs=None if self.pairs is None else self.pairs.to(device))


def sentences(text: str) -> tuple[str, ...]:
    """A text cut behind its sentences and before new lines; together they are the text, but for blanks at its end.

    The first gets a leading space where it has none. Numbers of a list, and common abbreviations, end no sentence.
    """
    found, start = list[str](), 0
    for match in _SENTENCE_END.finditer(text):
        piece = text[start : match.end()]
        if piece.strip() and not _GOES_ON.search(piece):
            found.append(piece)
            start = match.end()
    rest = text[start:].rstrip()
    found += [rest] if rest else []
    if found and not found[0][0].isspace():
        found[0] = f" {found[0]}"
    return tuple(found)


def plain(answer: str) -> str:
    """An answer as it is compared: numbers as numbers; else without spaces and marks around it, in small letters."""
    text = answer.strip().strip(".,;:!?\"'").strip().casefold()
    return _as_number(text) if NUMBER.fullmatch(text) else text


def _as_number(text: str) -> str:
    """``1,234.50`` as ``1234.5``."""
    value = Decimal(text.replace(",", "").replace("\u2212", "-"))
    return f"{value.normalize():f}"
