"""Metrics of a prompt's logits: logit and probability differences, log-probabilities, KL divergence, answer rank."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, cast, final

import torch
from jaxtyping import Int
from torch import Tensor

from mechxai.core.answers import check_one_alternative, log_sum_over, mean_over, sum_over, token_ids
from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, NumericsError, ShapeError, unknown
from mechxai.core.metric_base import Metric as Metric
from mechxai.core.metric_base import Reads, Term, one_token_each
from mechxai.core.metric_values import n_arguments, per_prompt
from mechxai.core.shapes import Answers, LogitsAt, PerPrompt

MetricName = Literal[
    "logit_diff", "logit", "prob", "prob_diff", "logprob", "logprob_diff", "kl_divergence", "answer_rank"
]
MetricFunction = Callable[[Tensor, ContrastBatch], Any] | Callable[[Tensor], Any]


@final
@dataclass(frozen=True)
class Logit(Metric):
    """Logit of the answer at the answer position (alternatives: their mean)."""

    name: ClassVar[str] = "logit"
    unit: ClassVar[str] = "logits"
    reads: ClassVar[Reads] = Reads(columns=lambda batch: token_ids(batch.answers))

    def score(self, logits: LogitsAt, batch: ContrastBatch) -> PerPrompt:
        """``mean logit[answers]``."""
        return mean_over(logits[:, 0], batch.answers)


@final
@dataclass(frozen=True)
class LogitDiff(Metric):
    """Logit of the answer minus logit of the wrong answer, at the answer position (alternatives: their means)."""

    name: ClassVar[str] = "logit_diff"
    unit: ClassVar[str] = "logits"
    reads: ClassVar[Reads] = Reads(check=one_token_each, columns=lambda batch: token_ids(batch.answers, batch.wrong))

    def score(self, logits: LogitsAt, batch: ContrastBatch) -> PerPrompt:
        """``mean logit[answers] - mean logit[wrong]``."""
        return mean_over(logits[:, 0], batch.answers) - mean_over(logits[:, 0], batch.wrong)


@final
@dataclass(frozen=True)
class Prob(Metric):
    """Probability of the answer (alternatives: of any of them)."""

    name: ClassVar[str] = "prob"
    unit: ClassVar[str] = "probability"

    def score(self, logits: LogitsAt, batch: ContrastBatch) -> PerPrompt:
        """``sum softmax(logits)[answers]``."""
        return sum_over(logits[:, 0].softmax(-1), batch.answers)


@final
@dataclass(frozen=True)
class ProbDiff(Metric):
    """Probability of the answers minus probability of the wrong answers (Hanna et al. 2023 for greater-than)."""

    name: ClassVar[str] = "prob_diff"
    unit: ClassVar[str] = "probability"
    reads: ClassVar[Reads] = Reads(check=one_token_each)

    def score(self, logits: LogitsAt, batch: ContrastBatch) -> PerPrompt:
        """``sum p[answers] - sum p[wrong]``."""
        probs = logits[:, 0].softmax(-1)
        return sum_over(probs, batch.answers) - sum_over(probs, batch.wrong)


def _check_sequence(metric: str, batch: ContrastBatch) -> None:
    """Refuses several alternatives, and a sequence that does not follow the prompt's last token."""
    check_one_alternative(metric, batch.answers)
    if batch.answers.shape[2] > 1 and bool((batch.answer_pos != batch.lengths - 1).any()):
        raise ShapeError(
            "A sequence of answer tokens must follow the prompt's last token, and some prompts have an earlier "
            "answer_pos"
        )


def _sequence_positions(batch: ContrastBatch) -> Int[Tensor, "batch k"]:
    """The answer position and those after it, one per answer token."""
    steps = torch.arange(batch.answers.shape[2], device=batch.answer_pos.device)
    n_tokens = (batch.answers[:, 0] >= 0).sum(1, keepdim=True)
    return batch.answer_pos[:, None] + torch.minimum(steps[None], n_tokens - 1)


def _all_but_last_token(batch: ContrastBatch) -> Answers | None:
    return batch.answers[:, :1, :-1] if batch.answers.shape[2] > 1 else None


@final
@dataclass(frozen=True)
class Logprob(Metric):
    """Log-probability of the whole answer, its tokens teacher-forced: ``sum_t log p(y_t | x, y_<t)``, in nats."""

    name: ClassVar[str] = "logprob"
    unit: ClassVar[str] = "nats"
    reads: ClassVar[Reads] = Reads(
        check=_check_sequence, positions=_sequence_positions, continuation=_all_but_last_token
    )

    def score(self, logits: LogitsAt, batch: ContrastBatch) -> PerPrompt:
        """The summed log-probability of the answer's tokens."""
        targets = batch.answers[:, 0]  # [batch, answer_tok]
        logprobs = logits.log_softmax(-1).gather(2, targets.clamp(min=0)[..., None])[..., 0]
        return torch.where(targets >= 0, logprobs, 0.0).sum(1)


def _logprob_terms(batch: ContrastBatch) -> Sequence[Term]:
    swapped = replace(batch, answers=batch.wrong, wrong=batch.answers)
    return ((1.0, Logprob(), batch), (-1.0, Logprob(), swapped))


@final
@dataclass(frozen=True)
class LogprobDiff(Metric):
    """Log-probability of the whole answer minus that of the whole wrong answer, in nats, each teacher-forced.

    For one token each it is the logit difference. For several tokens the two continuations need two passes (`terms`),
    which attribution methods make; sweeps read a single pass and refuse such answers.
    """

    name: ClassVar[str] = "logprob_diff"
    unit: ClassVar[str] = "nats"
    reads: ClassVar[Reads] = Reads(check=one_token_each, terms=_logprob_terms)

    def score(self, logits: LogitsAt, batch: ContrastBatch) -> PerPrompt:
        """``log sum p[answers] - log sum p[wrong]``."""
        logprobs = logits[:, 0].log_softmax(-1)
        return log_sum_over(logprobs, batch.answers) - log_sum_over(logprobs, batch.wrong)


@final
@dataclass(frozen=True)
class KlDivergence(Metric):
    """KL(clean || this run) of the next-token distribution at the answer position, in nats; 0 when equal."""

    name: ClassVar[str] = "kl_divergence"
    unit: ClassVar[str] = "nats"
    higher_is: ClassVar[str] = "away from the clean run"
    reads: ClassVar[Reads] = Reads(check=None)

    def score(self, logits: LogitsAt, batch: ContrastBatch) -> PerPrompt:
        """``sum_v p_clean (log p_clean - log p)``."""
        if batch.reference is None:
            raise ShapeError(
                "kl_divergence needs the clean run's distribution, and batch.reference is None",
                fix="Use the metric through a method, which sets batch.reference",
            )
        logprobs = logits[:, 0].log_softmax(-1)
        reference = batch.reference.to(logprobs)
        return (reference.exp() * (reference - logprobs)).sum(-1)


@final
@dataclass(frozen=True)
class AnswerRank(Metric):
    """Rank of the best answer among all tokens; 0 is the top."""

    name: ClassVar[str] = "answer_rank"
    unit: ClassVar[str] = "rank"
    higher_is: ClassVar[str] = "away from the answer"

    def score(self, logits: LogitsAt, batch: ContrastBatch) -> PerPrompt:
        """The number of tokens with a higher logit than the best alternative."""
        final_logits = logits[:, 0]
        ids = batch.answers[..., 0]
        best = torch.where(ids >= 0, final_logits.gather(1, ids.clamp(min=0)), -torch.inf).amax(1, keepdim=True)
        return (final_logits > best).sum(-1).to(final_logits.dtype)


@final
@dataclass(frozen=True)
class CustomMetric(Metric):
    """A function of full logits ``[batch, pos, d_vocab]`` and the batch; slower, since every position is read.

    The engine calls the function on parts of the batch, so it must return one value per prompt and treat each prompt by
    itself. It may take the logits alone, and return a numpy array, a Series or a list where no gradient is needed.
    """

    function: MetricFunction
    name: ClassVar[str] = "custom"
    unit: ClassVar[str] = "value"
    reads: ClassVar[Reads] = Reads(check=None, positions=None)

    def score(self, logits: LogitsAt, batch: ContrastBatch) -> PerPrompt:
        """The function's value, checked."""
        function = cast("Callable[..., object]", self.function)
        value = function(logits, batch) if n_arguments(function) == 2 else function(logits)
        return per_prompt(value, logits, len(batch))


METRICS: dict[str, type[Metric]] = {
    kind.name: kind for kind in (LogitDiff, Logit, Prob, ProbDiff, Logprob, LogprobDiff, KlDivergence, AnswerRank)
}
AnyMetric = MetricName | Metric | MetricFunction


def as_metric(metric: AnyMetric | str) -> Metric:
    """The metric that a name, a metric or a function stands for.

    Raises:
        ConfigError: no metric has that name.
    """
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, str):
        if metric not in METRICS:
            raise ConfigError(unknown("metric", metric, METRICS))
        return METRICS[metric]()
    if callable(metric):
        n_arguments(metric)  # refuses a function that cannot be called
        return CustomMetric(metric)
    raise ConfigError(
        f"A metric cannot be a {type(metric).__name__}", allowed="a name, a Metric, or a function (logits, batch)"
    )


def check_finite(values: Tensor, where: str, *, first_prompt: int = 0) -> None:
    """Raises `NumericsError` with the first prompt whose value is NaN or infinite."""
    bad = ~torch.isfinite(values)
    if bool(bad.any()):
        prompt = first_prompt + int(bad.reshape(len(values), -1).any(1).nonzero()[0])
        value = values.reshape(-1)[bad.reshape(-1)][0].item()
        raise NumericsError(
            f"The metric is not finite at {where}: {value} on prompt {prompt}",
            fix="Look for overflow (use float32 or bfloat16) or an edit that divides by zero",
        )
