"""Exact Shapley values, from the score of every coalition of players."""

from dataclasses import dataclass
from math import comb
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.core.errors import ConfigError
from mechxai.core.method import MethodCard, register
from mechxai.core.metric import AnyMetric
from mechxai.methods.attribution._lib.base import Attribution
from mechxai.methods.attribution._lib.baselines import Baseline
from mechxai.methods.attribution._lib.input import AttributionInput
from mechxai.methods.attribution._lib.players import PlayerKind
from mechxai.methods.attribution._lib.scores import TokenScores, spread_over_tokens

MAX_PLAYERS = 12


@final
@register(
    MethodCard(
        name="exact_shapley",
        family="attribution",
        kind="attribution",
        question="What does each player bring, averaged over every order in which they could come?",
        cost=f"2^M forward passes per prompt of M players, M up to {MAX_PLAYERS}",
        source="Shapley 1953; Lundberg & Lee 2017 (arXiv 1705.07874)",
        pros="the only scores with efficiency, symmetry, dummy and additivity; no sampling",
        cons="short prompts only (use words or spans); coalitions are not natural text",
    )
)
@dataclass(frozen=True)
class ExactShapley(Attribution):
    """``sum over S of |S|! (M - |S| - 1)! / M! (F(S with i) - F(S))``.

    Attributes:
        metric: what is scored.
        baseline: what replaces an absent player: ``pad``, ``mask``, ``zero``, ``mean``, ``counterfactual``,
            ``blank``.
        players: ``token``, ``word`` or ``span``.
        special: whether special tokens are players too.
    """

    metric: AnyMetric = "logit_diff"
    baseline: Baseline = "pad"
    players: PlayerKind = "word"
    special: bool = False

    def scores(self, inputs: AttributionInput) -> TokenScores:
        """The Shapley value of every player; all coalitions of all prompts run in one sweep.

        Raises:
            ConfigError: a prompt with too many players, before any forward pass.
        """
        counts, most = inputs.players.counts, inputs.players.most
        if most > MAX_PLAYERS:
            raise ConfigError(
                f"exact_shapley: prompt {counts.index(most)} has {most} players and {2**most:,} coalitions",
                allowed=f"up to {MAX_PLAYERS} players",
                fix="Use players=word or span, or kernel_shap, which samples",
            )
        coalition_scores = inputs.scores_without(_absent_players(counts))  # [coalition, batch]
        values = [shapley(coalition_scores[: 2**count, row]) for row, count in enumerate(counts)]
        padded = torch.stack([torch.nn.functional.pad(row, (0, most - len(row))) for row in values])
        return TokenScores(spread_over_tokens(inputs, padded), complete=True)


def _absent_players(counts: list[int]) -> Bool[Tensor, "cell batch player"]:
    """The absent players of each coalition; the bits of its number are the players present.

    Coalitions beyond ``2^count`` of a prompt have no absent players.
    """
    most = max(counts)
    number = torch.arange(2**most)[:, None, None]
    absent = (number >> torch.arange(most)) & 1 == 0
    is_player = torch.arange(most) < torch.tensor(counts)[:, None]
    is_coalition = number < 2 ** torch.tensor(counts)[:, None]
    return absent & is_player & is_coalition


def shapley(scores: Float[Tensor, " coalition"]) -> Float[Tensor, " player"]:
    """Shapley values from the score of every coalition, numbered by the bits of the players present."""
    n = len(scores).bit_length() - 1
    number = torch.arange(len(scores))
    size = sum((number >> player) & 1 for player in range(n))
    weights = torch.tensor([1 / (n * comb(n - 1, members)) for members in range(n)] + [0.0], dtype=torch.float64)
    values = []
    for player in range(n):
        without = number[(number >> player) & 1 == 0]
        gain = scores[without | (1 << player)] - scores[without]
        values.append((weights[torch.as_tensor(size)[without]] * gain).sum())
    return torch.stack(values)
