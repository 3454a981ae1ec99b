"""What the score loses when a token is taken away and all others stay."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool
from torch import Tensor

from mechxai.core.errors import ConfigError, check_choice
from mechxai.core.method import MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.methods.attribution._lib.base import Attribution
from mechxai.methods.attribution._lib.baselines import BASELINES
from mechxai.methods.attribution._lib.input import AttributionInput
from mechxai.methods.attribution._lib.players import KINDS
from mechxai.methods.attribution._lib.scores import Scores, of_players


@final
@register(
    MethodCard(
        name="occlusion",
        family="attribution",
        kind="attribution",
        question="What does the score lose when one token is taken away?",
        cost="one forward pass per player and prompt, from that player on",
        source="Zeiler & Fergus 2013 (arXiv 1311.2901); Li et al. 2016 (arXiv 1612.08220)",
        pros="an intervention, easily understood; cheap",
        cons="blind to tokens that stand in for each other; depends on the baseline",
    )
)
@dataclass(frozen=True)
class Occlusion(Attribution):
    """``F(x) - F(x without the player)``; through the engine, which runs only what comes after it.

    Attributes:
        metric: what is scored.
        baseline: what stands in place of a player: ``pad``, ``mask``, ``zero``, ``mean``, ``counterfactual``,
            ``blank``.
        window: neighbouring players taken away together; a player's score is the mean over the windows it is in.
        players: ``token``, ``word`` or ``span``.
        special: whether special tokens are players too.
    """

    metric: AnyMetric = "logit_diff"
    baseline: str = "pad"
    window: int = 1
    players: str = "token"
    special: bool = False

    def _check_fields(self) -> None:
        as_metric(self.metric)
        check_choice("baseline", self.baseline, BASELINES)
        check_choice("players", self.players, KINDS)
        if self.window < 1:
            raise ConfigError(f"occlusion with window={self.window}", allowed="1 or more")

    def scores(self, problem: AttributionInput) -> Scores:
        """The loss of every window, shared out over its players' means."""
        absent = self._windows(problem)
        loss = problem.target_score[None] - problem.without(absent)  # [cell, batch]
        inside = absent.double()
        values = torch.einsum("cb,cbp->bp", loss, inside) / inside.sum(0).clamp(min=1)
        return Scores(of_players(problem, values))

    def _windows(self, problem: AttributionInput) -> Bool[Tensor, "cell batch player"]:
        """The players of each window; windows reach over no edge of a prompt, and short prompts have fewer."""
        counts = torch.tensor(problem.players.counts)
        most = problem.players.most
        players = torch.arange(most)
        first = torch.arange(most)[:, None, None]
        inside = (players >= first) & (players < first + self.window)
        last = (counts - self.window).clamp(min=0)[None, :, None]
        return inside & (first <= last) & (players < counts[:, None])
