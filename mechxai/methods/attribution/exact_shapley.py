"""Shapley values by counting out every coalition: the truth that sampling methods come near to."""

from dataclasses import dataclass
from math import comb
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.core.errors import ConfigError, check_choice
from mechxai.core.method import MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.methods.attribution._lib.base import Attribution
from mechxai.methods.attribution._lib.baselines import BASELINES
from mechxai.methods.attribution._lib.input import AttributionInput
from mechxai.methods.attribution._lib.players import KINDS
from mechxai.methods.attribution._lib.scores import Scores, of_players

MOST_PLAYERS = 12


@final
@register(
    MethodCard(
        name="exact_shapley",
        family="attribution",
        kind="attribution",
        question="What does each player bring, averaged over every order in which they could come?",
        cost=f"2^M forward passes per prompt of M players, M up to {MOST_PLAYERS}",
        source="Shapley 1953; Lundberg & Lee 2017 (arXiv 1705.07874)",
        pros="the only scores with efficiency, symmetry, dummy and additivity; no sampling",
        cons="short prompts only (use words or spans); coalitions are no natural text",
    )
)
@dataclass(frozen=True)
class ExactShapley(Attribution):
    """``sum over S of |S|! (M - |S| - 1)! / M! (F(S with i) - F(S))``.

    Attributes:
        metric: what is scored.
        baseline: what stands in place of a player: ``pad``, ``mask``, ``zero``, ``mean``, ``counterfactual``,
            ``blank``.
        players: ``token``, ``word`` or ``span``.
        special: whether special tokens are players too.
    """

    metric: AnyMetric = "logit_diff"
    baseline: str = "pad"
    players: str = "word"
    special: bool = False

    def _check_fields(self) -> None:
        as_metric(self.metric)
        check_choice("baseline", self.baseline, BASELINES)
        check_choice("players", self.players, KINDS)

    def scores(self, problem: AttributionInput) -> Scores:
        """Every coalition of every prompt in one sweep, then the sum.

        Raises:
            ConfigError: a prompt with too many players, before any forward pass.
        """
        counts = problem.players.counts
        if problem.players.most > MOST_PLAYERS:
            row = counts.index(problem.players.most)
            raise ConfigError(
                f"exact_shapley of prompt {row}",
                got=f"{counts[row]} players, {2 ** counts[row]:,} coalitions",
                allowed=f"up to {MOST_PLAYERS}",
                fix="use players=word or span, or kernel_shap, which samples",
            )
        values = problem.without(_coalitions(problem.players.counts))  # [coalition, batch]
        found = [shapley(values[: 2**count, row]) for row, count in enumerate(counts)]
        width = problem.players.most
        padded = torch.stack([torch.nn.functional.pad(one, (0, width - len(one))) for one in found])
        return Scores(of_players(problem, padded), complete=True)


def _coalitions(counts: list[int]) -> Bool[Tensor, "cell batch player"]:
    """Who is absent in each coalition, numbered by the bits of those present; coalitions a prompt lacks lack nobody."""
    most = max(counts)
    number = torch.arange(2**most)[:, None, None]
    absent = (number >> torch.arange(most)) & 1 == 0
    known = torch.arange(most) < torch.tensor(counts)[:, None]
    exists = number < 2 ** torch.tensor(counts)[:, None]
    return absent & known & exists


def shapley(values: Float[Tensor, " coalition"]) -> Float[Tensor, " player"]:
    """Shapley values from the worth of every coalition, numbered by the bits of the players present."""
    n = len(values).bit_length() - 1
    number = torch.arange(len(values))
    size = sum((number >> player) & 1 for player in range(n))
    weights = torch.tensor([1 / (n * comb(n - 1, members)) for members in range(n)] + [0.0], dtype=torch.float64)
    found = []
    for player in range(n):
        without = number[(number >> player) & 1 == 0]
        gain = values[without | (1 << player)] - values[without]
        found.append((weights[torch.as_tensor(size)[without]] * gain).sum())
    return torch.stack(found)
