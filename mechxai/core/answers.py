"""Answer tokens: which ones a metric reads, and sums, means and probabilities over alternatives."""

from typing import cast

import torch
from jaxtyping import Int
from torch import Tensor

from mechxai.core.errors import ShapeError
from mechxai.core.shapes import Answers


def token_ids(*answers: Answers) -> Int[Tensor, " token"]:
    """The distinct token ids of the answers, ascending."""
    ids = torch.cat([answer.flatten() for answer in answers])
    return cast("Tensor", ids[ids >= 0].unique())  # pyright: ignore[reportUnknownMemberType]  # untyped in torch


def check_single_token(metric: str, answers: Answers) -> None:
    """Refuses answers of several tokens."""
    if answers.shape[2] > 1:
        raise ShapeError(
            f"Metric {metric} reads one token per answer, and some answers have {answers.shape[2]} tokens",
            fix="Use metric=logprob, which scores whole sequences",
        )


def check_one_alternative(metric: str, answers: Answers) -> None:
    """Refuses several alternatives."""
    if answers.shape[1] > 1:
        raise ShapeError(
            f"Metric {metric} scores one answer per prompt, and some prompts have {answers.shape[1]} alternatives",
            fix="Use metric=prob or metric=prob_diff",
        )


def sum_over(values: Tensor, answers: Answers) -> Tensor:
    """The sum of the values at the alternatives' first tokens, per prompt."""
    ids = answers[..., 0]
    return torch.where(ids >= 0, values.gather(1, ids.clamp(min=0)), 0.0).sum(1)


def mean_over(values: Tensor, answers: Answers) -> Tensor:
    """The mean of the values at the alternatives' first tokens, per prompt."""
    return sum_over(values, answers) / (answers[..., 0] >= 0).sum(1)


def log_sum_over(logprobs: Tensor, answers: Answers) -> Tensor:
    """The log-probability that one of the alternatives' first tokens follows, per prompt."""
    ids = answers[..., 0]
    present = torch.where(ids >= 0, logprobs.gather(1, ids.clamp(min=0)), -torch.inf)
    return present.logsumexp(1)
