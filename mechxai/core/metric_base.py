"""The interface of metrics: logits and a batch in, one number per prompt out.

A metric declares which logits it reads (`Reads`), so that no run computes more. Answers of several tokens are scored by
teacher forcing: the model reads the prompt with the answer appended (`Reads.continuation`).
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

from jaxtyping import Int
from torch import Tensor

from mechxai.core.answers import check_single_token
from mechxai.core.batch import ContrastBatch
from mechxai.core.metric_values import per_prompt
from mechxai.core.shapes import Answers, Logits, LogitsAt, PerPrompt


def at_answer(batch: ContrastBatch) -> Int[Tensor, "batch 1"]:
    """The answer position, ``[batch, 1]``."""
    return batch.answer_pos[:, None]


def one_token_answers(metric: str, batch: ContrastBatch) -> None:
    """Refuses answers of several tokens."""
    check_single_token(metric, batch.answers)


def one_token_each(metric: str, batch: ContrastBatch) -> None:
    """Refuses answers and wrong answers of several tokens."""
    check_single_token(metric, batch.answers)
    check_single_token(metric, batch.wrong)


@dataclass(frozen=True)
class Reads:
    """What a metric reads of a batch. Every function is called before any forward pass.

    Attributes:
        check: refuses batches that the metric cannot score; called with the metric's name and the batch. None accepts
            all.
        positions: positions whose logits it reads, ``[batch, k]``; None for all positions.
        columns: ids of the tokens whose logits it reads, ascending; None for the whole vocabulary.
        continuation: tokens to append to the prompt so that they can be scored, ``[batch, 1, answer_tok]``, or None.
        terms: one-pass metrics whose weighted sum this metric is; None when one pass suffices.
    """

    check: Callable[[str, ContrastBatch], None] | None = one_token_answers
    positions: Callable[[ContrastBatch], Tensor] | None = at_answer
    columns: Callable[[ContrastBatch], Tensor] | None = None
    continuation: Callable[[ContrastBatch], Answers | None] | None = None
    terms: "Callable[[ContrastBatch], Sequence[Term]] | None" = None


class Metric(ABC):
    """A number per prompt. A new metric is a frozen dataclass with a name, a unit, what it reads, and `score`.

    Attributes:
        name: as in configs.
        unit: of the value.
        higher_is: what a higher value means (``towards the answer``).
        reads: which logits it reads, and which batches it accepts; one-token answers at the answer position by default.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    higher_is: ClassVar[str] = "towards the answer"
    reads: ClassVar[Reads] = Reads()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Checks what the `score` of a metric from outside this package returns."""
        super().__init_subclass__(**kwargs)
        score = vars(cls).get("score")
        if score is not None and not cls.__module__.startswith("mechxai."):
            cls.score = _checked(score)  # pyright: ignore[reportAttributeAccessIssue]  # the same arguments

    @abstractmethod
    def score(self, logits: LogitsAt, batch: ContrastBatch) -> PerPrompt:
        """The value of each prompt from the logits at `positions`."""

    @final
    def check(self, batch: ContrastBatch) -> None:
        """Refuses a batch that this metric cannot score."""
        if self.reads.check is not None:
            self.reads.check(self.name, batch)

    @final
    def positions(self, batch: ContrastBatch) -> Int[Tensor, "batch k"] | None:
        """Positions whose logits are read, ``[batch, k]``; None for all."""
        return None if self.reads.positions is None else self.reads.positions(batch)

    @final
    def columns(self, batch: ContrastBatch) -> Int[Tensor, " column"] | None:
        """The tokens whose logits are read, ascending; None for the whole vocabulary."""
        return None if self.reads.columns is None else self.reads.columns(batch)

    @final
    def continuation(self, batch: ContrastBatch) -> Answers | None:
        """Tokens appended to the prompt so that they can be scored, ``[batch, 1, answer_tok]``; None for none."""
        return None if self.reads.continuation is None else self.reads.continuation(batch)

    @final
    def terms(self, batch: ContrastBatch) -> "Sequence[Term]":
        """One-pass metrics whose weighted sum is this one, each with its weight and the batch it scores."""
        return ((1.0, self, batch),) if self.reads.terms is None else self.reads.terms(batch)

    def __call__(self, logits: Logits, batch: ContrastBatch) -> PerPrompt:
        """The value of each prompt from full logits, ``[batch, pos, d_vocab]``."""
        positions = self.positions(batch)
        if positions is not None:
            logits = logits.gather(1, positions[:, :, None].expand(-1, -1, logits.shape[-1]))
        return self.score(logits, batch)


def _checked(score: Callable[..., object]) -> Any:
    @functools.wraps(score)
    def checked(self: Metric, logits: LogitsAt, batch: ContrastBatch) -> PerPrompt:
        return per_prompt(score(self, logits, batch), logits, len(batch))

    return checked


Term = tuple[float, Metric, ContrastBatch]
