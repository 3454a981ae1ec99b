"""Attention followed through the layers: how much of each token could have flowed to the answer position."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from mechxai.core.errors import ConfigError, check_choice
from mechxai.core.method import MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.methods.attribution._lib.base import Attribution
from mechxai.methods.attribution._lib.input import AttributionInput
from mechxai.methods.attribution._lib.players import KINDS
from mechxai.methods.attribution._lib.scores import Scores
from mechxai.methods.attribution.attention_scores import FUSIONS, fused, own_rows, weights_scores
from mechxai.methods.fields import selected


@final
@register(
    MethodCard(
        name="attention_rollout",
        family="attribution",
        kind="attribution",
        question="Along attention and residual connections, which tokens can have reached the answer position?",
        cost="one forward pass per prompt",
        source="Abnar & Zuidema 2020 (arXiv 2005.00928)",
        pros="cheap; takes all layers and the residual stream into account",
        cons="blind to values, MLPs and signs; the first token soaks it up",
    )
)
@dataclass(frozen=True)
class AttentionRollout(Attribution):
    """``R_l = A'_l R_(l-1)``, ``R_0`` the identity, ``A'`` fused heads mixed with the identity, rows adding up to 1.

    Attributes:
        residual: weight of the identity in the mix; 0.5 as in the paper.
        fusion: of the heads: ``mean`` (the paper), ``max`` or ``min``.
        start: first layer that is followed.
        bos: ``drop`` takes special tokens (the attention sink) out of every pattern, the rest adding up to 1 again;
            ``keep`` leaves them in.
        metric: only recorded, with its scores, for comparison; rollout does not depend on it.
        players: ``token``, ``word`` or ``span``, for ``player_value``.
        special: whether special tokens are scored too.
    """

    residual: float = 0.5
    fusion: str = "mean"
    start: int = 0
    bos: str = "keep"
    metric: AnyMetric = "logit_diff"
    players: str = "token"
    special: bool = False

    looks_inside: ClassVar[bool] = True

    def _check_fields(self) -> None:
        as_metric(self.metric)
        check_choice("players", self.players, KINDS)
        check_choice("fusion", self.fusion, FUSIONS)
        check_choice("bos", self.bos, ("keep", "drop"))
        if not 0 <= self.residual < 1:
            raise ConfigError(f"attention_rollout with residual={self.residual}", allowed="from 0 to below 1")

    def scores(self, problem: AttributionInput) -> Scores:
        """The answer position's row of the last product; ``on_special`` [prompt] is what lies on tokens without score.

        Raises:
            SiteError: a first layer the model does not have.
        """
        n_layers = problem.subject.architecture.n_layers
        layers = list(range(selected("layer", [self.start], n_layers)[0], n_layers))

        def some(rows: Tensor) -> Tensor:
            part = problem.rows_of(rows)
            patterns = fused(part.subject.patterns(part.batch, part.embeddings, layers).double(), self.fusion)[
                :, :, None
            ]
            if self.bos == "drop":
                free = part.players.free(patterns.device)
                patterns = patterns.masked_fill(~free[None, :, None, None, :], 0.0)
            rolled = rollout(own_rows(patterns, part)[:, :, 0], self.residual)
            every = torch.arange(len(part), device=rolled.device)
            return rolled[every, part.batch.answer_pos].cpu()

        return weights_scores(problem, problem.in_parts(some), bos=self.bos)


def rollout(patterns: Tensor, residual: float) -> Tensor:
    """The product of all layers, ``[layer, row, dest, src]`` to ``[row, dest, src]``; rows of real tokens sum to 1."""
    identity = torch.eye(patterns.shape[-1], dtype=patterns.dtype, device=patterns.device)
    total = identity
    for pattern in patterns:
        mixed = residual * identity + (1 - residual) * pattern
        total = mixed / mixed.sum(-1, keepdim=True) @ total
    return total
