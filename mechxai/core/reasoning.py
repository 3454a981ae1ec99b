"""Problems for chains of thought: questions, correct chains, mistakes, and the wording of prompts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

import torch

from mechxai.core.batch import ContrastBatch
from mechxai.core.display import Displayed, Summary, counted, of_task, prompt_rows
from mechxai.core.errors import ConfigError, ShapeError
from mechxai.core.shapes import Rows, pick

_SENTENCE_END = re.compile(r"[.!?]+[\"')\]]*(?=\s)|[\u3002\uff01\uff1f]+|(?=\n)")  # Chinese and Japanese marks too
_NO_SENTENCE_END = re.compile(r"^\s*\d+\.$|(^|\s)([Dd]r|[Mm]rs?|Ms|St|vs|e\.g|i\.e|approx)\.$")  # "1." of a list, "Dr."
NUMBER = re.compile(r"(?<![\w.,])[-\u2212]?\d+(?:,\d{3})*(?:\.\d+)?")


@dataclass(frozen=True)
class Mistake:
    """A wrong step and the answer that follows from it.

    Attributes:
        text: the wrong step.
        answer: the answer if all later steps are correct.
    """

    text: str
    answer: str


@dataclass(frozen=True)
class Problem:
    """A question that takes several steps of reasoning.

    Attributes:
        question: the text before the chain.
        answer: the correct answer, with its leading space.
        steps: a correct chain, one sentence per step, with leading spaces; empty if unknown.
        mistakes: for each step, a wrong version of it; empty if unknown.
        rephrased: each step in other words; empty if unknown.
        options: the possible answers; empty if any text may be an answer.
        template: the template it was drawn from, for splits.
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
            raise ShapeError(
                f"A problem needs a question and an answer: they are {self.question!r} and {self.answer!r}"
            )
        for name in ("mistakes", "rephrased"):
            values = getattr(self, name)
            if values and len(values) != len(self.steps):
                raise ShapeError(
                    f"A problem with {counted(len(self.steps), 'step')} has {len(values)} {name}: give one per step"
                )
        if not self.options:
            return
        if self.answer not in self.options:
            raise ShapeError(f"The answer {self.answer!r} is not among the options", allowed=map(repr, self.options))
        if len({plain(option) for option in self.options}) < max(2, len(self.options)):
            raise ShapeError(
                f"The options {self.options} are too few or too alike",
                fix="Give at least two that differ in more than capitals, spaces and punctuation",
            )


@dataclass(frozen=True)
class Wording:
    """The texts that join questions, chains and answers into prompts.

    Attributes:
        start: invites a chain, right after the question.
        cue: asks for the answer, right after the chain; a generated chain ends here.
        filler: replaces a word of the chain when its words are removed.
        irrelevant: a sentence unrelated to any problem, repeated to a chain of any length.
        suggestion: a sentence after the question that suggests an answer; ``{answer}`` is filled in.
        end: ends an answer in written text.
    """

    start: str = ""
    cue: str = " So the answer is"
    filler: str = " ..."
    irrelevant: str = " Tom rides home on the bus."
    suggestion: str = " I think the answer is{answer}."
    end: str = "."

    def __post_init__(self) -> None:
        if not self.filler.strip() or not self.irrelevant.strip() or not self.cue.strip():
            raise ConfigError("The wording has an empty cue, filler or irrelevant text", fix="Give each some words")
        filled = self.suggestion.replace("{answer}", "")
        if filled == self.suggestion or "{" in filled or "}" in filled:
            raise ConfigError(
                f"The wording's suggestion {self.suggestion!r} cannot be filled in",
                allowed="a text with {answer} and no other braces",
            )

    def prompt(self, question: str, steps: Sequence[str]) -> str:
        """The prompt that the answer follows: question, chain and cue."""
        return self.chain(question, steps) + self.cue

    def chain(self, question: str, steps: Sequence[str]) -> str:
        """The prompt that the next step follows: question and chain so far."""
        return question + (self.start if steps else "") + "".join(steps)

    def chain_start(self, question: str) -> str:
        """The prompt that a generated chain follows."""
        return question + self.start


@dataclass(frozen=True, repr=False)
class ReasoningBatch(Displayed):
    """Problems and the wording of their prompts.

    Attributes:
        problems: at least one.
        wording: of all problems.
        pairs: for causal methods on local models: problems with correct chains (clean), each aligned with one in the
            same words with another answer (corrupted); roles ``QUESTION``, ``STEP1`` ... ``CUE`` span their tokens
            (``QUESTION_first`` to ``QUESTION``).
        info: provenance: task, settings, seed.
    """

    problems: tuple[Problem, ...]
    wording: Wording = Wording()
    pairs: ContrastBatch | None = None
    info: Mapping[str, object] = field(default_factory=dict[str, object])

    def __post_init__(self) -> None:
        if not self.problems:
            raise ShapeError("The reasoning batch is empty: it needs at least one problem")

    def __len__(self) -> int:
        return len(self.problems)

    @property
    def identity(self) -> tuple[object, ...]:
        """The values that determine results, for run ids."""
        return (self.problems, self.wording, self.pairs)

    def summary(self) -> Summary:
        """Size, task, the first questions, the wording's cue."""
        pairs = "" if self.pairs is None else f", {counted(len(self.pairs), 'aligned pair')}"
        questions = [f"{problem.question} ->{problem.answer}" for problem in self.problems]
        title = f"ReasoningBatch: {counted(len(self), 'problem')}{of_task(self.info)}{pairs}"
        return Summary(title, [*prompt_rows(questions), ("cue", self.wording.cue.strip())])

    @property
    def groups(self) -> tuple[str, ...]:
        """The template of each problem."""
        return tuple(problem.template for problem in self.problems)

    def rows(self, chosen: Rows) -> "ReasoningBatch":
        """Some of the problems."""
        return replace(self, problems=pick(self.problems, chosen), pairs=None)

    def to(self, device: torch.device | str) -> "ReasoningBatch":
        """The same batch with its pairs on another device."""
        return replace(self, pairs=None if self.pairs is None else self.pairs.to(device))


def sentences(text: str) -> tuple[str, ...]:
    """The sentences of a text, split also before new lines; joined they are the text without trailing blanks.

    The first sentence gets a leading space if it has none. List numbers and common abbreviations end no sentence.
    """
    pieces, start = list[str](), 0
    for match in _SENTENCE_END.finditer(text):
        piece = text[start : match.end()]
        if piece.strip() and not _NO_SENTENCE_END.search(piece):
            pieces.append(piece)
            start = match.end()
    rest = text[start:].rstrip()
    pieces += [rest] if rest else []
    if pieces and not pieces[0][0].isspace():
        pieces[0] = f" {pieces[0]}"
    return tuple(pieces)


def plain(answer: str) -> str:
    """An answer in normal form for comparison: numbers by value, texts in lower case without outer punctuation."""
    text = answer.strip().strip(".,;:!?\"'").strip().casefold()
    return _as_number(text) if NUMBER.fullmatch(text) else text


def _as_number(text: str) -> str:
    """``1,234.50`` as ``1234.5``."""
    value = Decimal(text.replace(",", "").replace("\u2212", "-"))
    return f"{value.normalize():f}"
