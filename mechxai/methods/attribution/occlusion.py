"""Occlusion: the loss of the score when a token is deleted and all others stay."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool
from torch import Tensor

from mechxai.core.errors import ConfigError
from mechxai.core.method import MethodCard, register
from mechxai.core.metric import AnyMetric
from mechxai.methods.attribution._lib.base import Attribution
from mechxai.methods.attribution._lib.baselines import Baseline
from mechxai.methods.attribution._lib.input import AttributionInput
from mechxai.methods.attribution._lib.players import PlayerKind
from mechxai.methods.attribution._lib.scores import TokenScores, spread_over_tokens


@final
@register(
    MethodCard(
        name="occlusion",
        family="attribution",
        kind="attribution",
        question="What does the score lose when one token is deleted?",
        cost="one forward pass per player and prompt, from that player on",
        source="Zeiler & Fergus 2013 (arXiv 1311.2901); Li et al. 2016 (arXiv 1612.08220)",
        pros="an intervention, easily understood; cheap",
        cons="misses tokens that can replace each other; depends on the baseline",
    )
)
@dataclass(frozen=True)
class Occlusion(Attribution):
    """``F(x) - F(x without the player)``; the engine runs only the positions from the player on.

    Attributes:
        metric: what is scored.
        baseline: what replaces a deleted player: ``pad``, ``mask``, ``zero``, ``mean``, ``counterfactual``,
            ``blank``.
        window: neighbouring players deleted together; a player's score is the mean over the windows it is in.
        players: ``token``, ``word`` or ``span``.
        special: whether special tokens are players too.
    """

    metric: AnyMetric = "logit_diff"
    baseline: Baseline = "pad"
    window: int = 1
    players: PlayerKind = "token"
    special: bool = False

    def _check_fields(self) -> None:
        if self.window < 1:
            raise ConfigError(f"window is {self.window}: it must be at least 1")

    def scores(self, inputs: AttributionInput) -> TokenScores:
        """The loss of every player, averaged over the windows it is in."""
        absent = self._windows(inputs)
        loss = inputs.target_score[None] - inputs.scores_without(absent)  # [cell, batch]
        in_window = absent.double()
        values = torch.einsum("cb,cbp->bp", loss, in_window) / in_window.sum(0).clamp(min=1)
        return TokenScores(spread_over_tokens(inputs, values))

    def _windows(self, inputs: AttributionInput) -> Bool[Tensor, "cell batch player"]:
        """The players of each window; windows lie within the prompt, so short prompts have fewer."""
        counts = torch.tensor(inputs.players.counts)
        most = inputs.players.most
        players = torch.arange(most)
        first = torch.arange(most)[:, None, None]
        in_window = (players >= first) & (players < first + self.window)
        last = (counts - self.window).clamp(min=0)[None, :, None]
        return in_window & (first <= last) & (players < counts[:, None])
