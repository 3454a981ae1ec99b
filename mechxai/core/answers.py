"""Answers as metrics read them: which tokens they are, and the values that stand at those."""

from typing import cast

import torch
from jaxtyping import Int
from torch import Tensor

from mechxai.core.errors import ShapeError
from mechxai.core.shapes import Answers


def token_ids(*answers: Answers) -> Int[Tensor, " token"]:
    """Every token of the answers, once, ascending."""
    ids = torch.cat([one.flatten() for one in answers])
    return cast("Tensor", ids[ids >= 0].unique())  # pyright: ignore[reportUnknownMemberType]  # untyped in torch


def single_token(name: str, answers: Answers) -> None:
    """Refuses answers of several tokens."""
    if answers.shape[2] > 1:
        raise ShapeError(
            f"Metric {name} reads one token per answer",
            got=f"answers of up to {answers.shape[2]} tokens",
            fix="use metric=logprob, which scores sequences",
        )


def one_alternative(name: str, answers: Answers) -> None:
    """Refuses several alternatives."""
    if answers.shape[1] > 1:
        raise ShapeError(
            f"Metric {name} scores one answer per prompt",
            got=f"{answers.shape[1]} alternatives",
            fix="use metric=prob or prob_diff",
        )


def sum_over(values: Tensor, answers: Answers) -> Tensor:
    """The sum of the values at the alternatives' first tokens, per prompt."""
    ids = answers[..., 0]
    return torch.where(ids >= 0, values.gather(1, ids.clamp(min=0)), 0.0).sum(1)


def mean_over(values: Tensor, answers: Answers) -> Tensor:
    """The mean of the values at the alternatives' first tokens, per prompt."""
    return sum_over(values, answers) / (answers[..., 0] >= 0).sum(1)


def log_sum_over(logprobs: Tensor, answers: Answers) -> Tensor:
    """The log-probability of any of the alternatives' first tokens, per prompt."""
    ids = answers[..., 0]
    found = torch.where(ids >= 0, logprobs.gather(1, ids.clamp(min=0)), -torch.inf)
    return found.logsumexp(1)
