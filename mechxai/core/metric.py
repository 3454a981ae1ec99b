"""What is measured: logits and a batch in, one number per prompt out.

A metric says which positions' logits it reads (`positions`), so that no run computes more. Several answer tokens are
scored by teacher forcing: the run then reads the prompt with the answer appended (`continuation`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from mechxai.core.answers import log_sum_over, mean_over, one_alternative, single_token, sum_over, token_ids
from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, NumericsError, ShapeError, nearest
from mechxai.core.shapes import Answers, Logits, LogitsAt, PerPrompt


class Metric(ABC):
    """A number per prompt.

    Attributes:
        name: as in configs.
        unit: of the value.
        higher_is: what a higher value means (``towards the answer``).
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    higher_is: ClassVar[str] = "towards the answer"

    @abstractmethod
    def score(self, logits: LogitsAt, batch: ContrastBatch) -> PerPrompt:
        """The value of each prompt from the logits at `positions`."""

    def check(self, batch: ContrastBatch) -> None:
        """Refuses a batch this metric cannot score, before any forward pass."""
        single_token(self.name, batch.answers)

    def continuation(self, batch: ContrastBatch) -> Answers | None:
        """Tokens appended to the prompt so that they can be scored, ``[batch, 1, answer_tok]``; None for none."""
        del batch
        return None

    def positions(self, batch: ContrastBatch) -> Int[Tensor, "batch k"] | None:
        """Positions whose logits are read, ``[batch, k]``; None for all."""
        return batch.answer_pos[:, None]

    def columns(self, batch: ContrastBatch) -> Int[Tensor, " column"] | None:
        """The tokens whose logits are read, ascending; None for the whole vocabulary."""
        del batch
        return None

    def terms(self, batch: ContrastBatch) -> "Sequence[Term]":
        """Metrics of one pass each whose weighted sum is this one, each with the batch it scores."""
        return ((1.0, self, batch),)

    def __call__(self, logits: Logits, batch: ContrastBatch) -> PerPrompt:
        """The value of each prompt from full logits, ``[batch, pos, d_vocab]``."""
        at = self.positions(batch)
        if at is not None:
            logits = logits.gather(1, at[:, :, None].expand(-1, -1, logits.shape[-1]))
        return self.score(logits, batch)


Term = tuple[float, Metric, ContrastBatch]


@dataclass(frozen=True)
class Logit(Metric):
    """Logit of the answer at the answer position (alternatives: their mean)."""

    name: ClassVar[str] = "logit"
    unit: ClassVar[str] = "logits"

    def columns(self, batch: ContrastBatch) -> Int[Tensor, " column"]:
        """The answers."""
        return token_ids(batch.answers)

    def score(self, logits: LogitsAt, batch: ContrastBatch) -> PerPrompt:
        """``mean logit[answers]``."""
        return mean_over(logits[:, 0], batch.answers)


@dataclass(frozen=True)
class LogitDiff(Metric):
    """Logit of the answer minus logit of the wrong answer, at the answer position (alternatives: their means)."""

    name: ClassVar[str] = "logit_diff"
    unit: ClassVar[str] = "logits"

    def check(self, batch: ContrastBatch) -> None:
        """One-token answers and wrong answers."""
        single_token(self.name, batch.answers)
        single_token(self.name, batch.wrong)

    def columns(self, batch: ContrastBatch) -> Int[Tensor, " column"]:
        """The answers and the wrong answers."""
        return token_ids(batch.answers, batch.wrong)

    def score(self, logits: LogitsAt, batch: ContrastBatch) -> PerPrompt:
        """``mean logit[answers] - mean logit[wrong]``."""
        return mean_over(logits[:, 0], batch.answers) - mean_over(logits[:, 0], batch.wrong)


@dataclass(frozen=True)
class Prob(Metric):
    """Probability of the answer (alternatives: of any of them)."""

    name: ClassVar[str] = "prob"
    unit: ClassVar[str] = "probability"

    def score(self, logits: LogitsAt, batch: ContrastBatch) -> PerPrompt:
        """``sum softmax(logits)[answers]``."""
        return sum_over(logits[:, 0].softmax(-1), batch.answers)


@dataclass(frozen=True)
class ProbDiff(Metric):
    """Probability of the answers minus probability of the wrong answers (Hanna et al. 2023 for greater-than)."""

    name: ClassVar[str] = "prob_diff"
    unit: ClassVar[str] = "probability"

    def check(self, batch: ContrastBatch) -> None:
        """One-token answers and wrong answers."""
        single_token(self.name, batch.answers)
        single_token(self.name, batch.wrong)

    def score(self, logits: LogitsAt, batch: ContrastBatch) -> PerPrompt:
        """``sum p[answers] - sum p[wrong]``."""
        probs = logits[:, 0].softmax(-1)
        return sum_over(probs, batch.answers) - sum_over(probs, batch.wrong)


@dataclass(frozen=True)
class Logprob(Metric):
    """Log-probability of the whole answer, its tokens teacher-forced: ``sum_t log p(y_t | x, y_<t)``, in nats."""

    name: ClassVar[str] = "logprob"
    unit: ClassVar[str] = "nats"

    def check(self, batch: ContrastBatch) -> None:
        """One alternative per prompt, and the answer right after the prompt's end."""
        one_alternative(self.name, batch.answers)
        if batch.answers.shape[2] > 1 and bool((batch.answer_pos != batch.lengths - 1).any()):
            raise ShapeError(
                "A sequence of answer tokens must follow the prompt's last token", got="an earlier answer_pos"
            )

    def continuation(self, batch: ContrastBatch) -> Answers | None:
        """The answer but its last token."""
        return batch.answers[:, :1, :-1] if batch.answers.shape[2] > 1 else None

    def positions(self, batch: ContrastBatch) -> Int[Tensor, "batch k"]:
        """The answer position and those after it, one per answer token."""
        steps = torch.arange(batch.answers.shape[2], device=batch.answer_pos.device)
        present = (batch.answers[:, 0] >= 0).sum(1, keepdim=True)
        return batch.answer_pos[:, None] + torch.minimum(steps[None], present - 1)

    def score(self, logits: LogitsAt, batch: ContrastBatch) -> PerPrompt:
        """The summed log-probability of the answer's tokens."""
        targets = batch.answers[:, 0]  # [batch, answer_tok]
        logprobs = logits.log_softmax(-1).gather(2, targets.clamp(min=0)[..., None])[..., 0]
        return torch.where(targets >= 0, logprobs, 0.0).sum(1)


@dataclass(frozen=True)
class LogprobDiff(Metric):
    """Log-probability of the whole answer minus that of the whole wrong answer, in nats, each teacher-forced.

    For one token each it is the logit difference. For several, the two continuations are two passes, which methods of
    attribution make (`terms`); sweeps read one pass.
    """

    name: ClassVar[str] = "logprob_diff"
    unit: ClassVar[str] = "nats"

    def check(self, batch: ContrastBatch) -> None:
        """One token each, in a single pass."""
        single_token(self.name, batch.answers)
        single_token(self.name, batch.wrong)

    def terms(self, batch: ContrastBatch) -> "Sequence[Term]":
        """The answer's log-probability, less the wrong answer's."""
        swapped = replace(batch, answers=batch.wrong, wrong=batch.answers)
        return ((1.0, Logprob(), batch), (-1.0, Logprob(), swapped))

    def score(self, logits: LogitsAt, batch: ContrastBatch) -> PerPrompt:
        """``log sum p[answers] - log sum p[wrong]``."""
        logprobs = logits[:, 0].log_softmax(-1)
        return log_sum_over(logprobs, batch.answers) - log_sum_over(logprobs, batch.wrong)


@dataclass(frozen=True)
class KlDivergence(Metric):
    """KL(clean || this run) of the next-token distribution at the answer position, in nats; 0 when equal."""

    name: ClassVar[str] = "kl_divergence"
    unit: ClassVar[str] = "nats"
    higher_is: ClassVar[str] = "away from the clean run"

    def check(self, batch: ContrastBatch) -> None:
        """Any batch."""
        del batch

    def score(self, logits: LogitsAt, batch: ContrastBatch) -> PerPrompt:
        """``sum_v p_clean (log p_clean - log p)``."""
        if batch.reference is None:
            raise ShapeError(
                "kl_divergence needs the clean run's distribution",
                got="batch.reference is None",
                fix="call it through a method, which fills it in",
            )
        logprobs = logits[:, 0].log_softmax(-1)
        reference = batch.reference.to(logprobs)
        return (reference.exp() * (reference - logprobs)).sum(-1)


@dataclass(frozen=True)
class AnswerRank(Metric):
    """Rank of the best answer among all tokens; 0 is the top."""

    name: ClassVar[str] = "answer_rank"
    unit: ClassVar[str] = "rank"
    higher_is: ClassVar[str] = "away from the answer"

    def score(self, logits: LogitsAt, batch: ContrastBatch) -> PerPrompt:
        """How many tokens have a higher logit than the best alternative."""
        final = logits[:, 0]
        ids = batch.answers[..., 0]
        best = torch.where(ids >= 0, final.gather(1, ids.clamp(min=0)), -torch.inf).amax(1, keepdim=True)
        return (final > best).sum(-1).to(final.dtype)


@dataclass(frozen=True)
class CustomMetric(Metric):
    """Your own function of full logits ``[batch, pos, d_vocab]`` and the batch; slower, since every position is read.

    The function is called on parts of the batch, so it must give one value per prompt and look at each prompt alone.
    """

    function: Callable[[Tensor, ContrastBatch], Tensor]
    name: ClassVar[str] = "custom"
    unit: ClassVar[str] = "value"

    def check(self, batch: ContrastBatch) -> None:
        """Any batch."""
        del batch

    def positions(self, batch: ContrastBatch) -> None:
        """All."""
        del batch

    def score(self, logits: LogitsAt, batch: ContrastBatch) -> PerPrompt:
        """The function's value."""
        value = self.function(logits, batch)
        if value.shape != (len(batch),):
            raise ShapeError(
                "A metric must give one value per prompt", got=tuple(value.shape), allowed=f"({len(batch)},)"
            )
        return value


METRICS: dict[str, type[Metric]] = {
    kind.name: kind for kind in (LogitDiff, Logit, Prob, ProbDiff, Logprob, LogprobDiff, KlDivergence, AnswerRank)
}


AnyMetric = str | Metric | Callable[[Tensor, ContrastBatch], Tensor]


def as_metric(metric: AnyMetric) -> Metric:
    """The metric a name, a metric or a function means.

    Raises:
        ConfigError: no metric has that name.
    """
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, str):
        if metric not in METRICS:
            raise ConfigError(f"Metric {metric!r} was asked", got="no such metric", allowed=nearest(metric, METRICS))
        return METRICS[metric]()
    if callable(metric):
        return CustomMetric(metric)
    raise ConfigError(
        "A metric was asked", got=type(metric).__name__, allowed="a name, a Metric, or a function (logits, batch)"
    )


def check_finite(values: Tensor, where: str, *, first_prompt: int = 0) -> None:
    """Raises `NumericsError` naming the first prompt whose value is NaN or infinite."""
    bad = ~torch.isfinite(values)
    if bool(bad.any()):
        prompt = first_prompt + int(bad.reshape(len(values), -1).any(1).nonzero()[0])
        raise NumericsError(
            f"The metric is not a finite number at {where}",
            got=f"{values.reshape(-1)[bad.reshape(-1)][0].item()} on prompt {prompt}",
            fix="look for overflow (use float32 or bfloat16) or an edit that divides by zero",
        )
