"""Attention rollout: the product of the layers' attention, how much of each token can reach the answer position."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.errors import ConfigError
from mechxai.core.method import MethodCard, register
from mechxai.core.metric import AnyMetric
from mechxai.methods.attribution._lib.attention_weights import (
    HeadFusion,
    SinkRule,
    fuse_heads,
    weight_scores,
    without_padding,
)
from mechxai.methods.attribution._lib.base import Attribution
from mechxai.methods.attribution._lib.input import AttributionInput
from mechxai.methods.attribution._lib.players import PlayerKind
from mechxai.methods.attribution._lib.scores import TokenScores
from mechxai.methods.layer_selection import selected


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
        cons="ignores values, MLPs and signs; most of the weight lies on the first token",
    )
)
@dataclass(frozen=True)
class AttentionRollout(Attribution):
    """``R_l = A'_l R_(l-1)``, ``R_0`` the identity, ``A'`` fused heads mixed with the identity, rows summing to 1.

    Attributes:
        residual: weight of the identity in the mix; 0.5 as in the paper.
        fusion: of the heads: ``mean`` (the paper), ``max`` or ``min``.
        start: first layer of the product.
        bos: ``drop`` removes special tokens (the attention sink) from every pattern and rescales the rows to sum to 1;
            ``keep`` leaves them in.
        metric: recorded with its scores, for comparison; rollout does not depend on it.
        players: ``token``, ``word`` or ``span``, for ``player_value``.
        special: whether special tokens are scored too.
    """

    residual: float = 0.5
    fusion: HeadFusion = "mean"
    start: int = 0
    bos: SinkRule = "keep"
    metric: AnyMetric = "logit_diff"
    players: PlayerKind = "token"
    special: bool = False

    needs_internals: ClassVar[bool] = True

    def _check_fields(self) -> None:
        if not 0 <= self.residual < 1:
            raise ConfigError(f"residual is {self.residual}", allowed="0 up to, but not including, 1")

    def scores(self, inputs: AttributionInput) -> TokenScores:
        """The answer position's row of the product; ``on_special`` [prompt] is the weight on tokens without a score.

        Raises:
            SiteError: a first layer the model does not have.
        """
        n_layers = inputs.model.architecture.n_layers
        layers = list(range(selected("layer", [self.start], n_layers)[0], n_layers))

        def weights(rows: Tensor) -> Tensor:
            part = inputs.consecutive_rows(rows)
            patterns = part.model.patterns(part.batch, part.embeddings, layers).double()
            fused = fuse_heads(patterns, self.fusion)[:, :, None]  # [layer, prompt, 1, dest, src]
            if self.bos == "drop":
                has_player = part.players.has_player(fused.device)
                fused = fused.masked_fill(~has_player[None, :, None, None, :], 0.0)
            rolled = rollout(without_padding(fused, part)[:, :, 0], self.residual)
            prompts = torch.arange(len(part), device=rolled.device)
            return rolled[prompts, part.batch.answer_pos].cpu()

        return weight_scores(inputs, inputs.in_row_chunks(weights), bos=self.bos)


def rollout(patterns: Float[Tensor, "layer row dest src"], residual: float) -> Float[Tensor, "row dest src"]:
    """The product of all layers; rows of real tokens sum to 1."""
    identity = torch.eye(patterns.shape[-1], dtype=patterns.dtype, device=patterns.device)
    total = identity
    for pattern in patterns:
        mixed = residual * identity + (1 - residual) * pattern
        total = mixed / mixed.sum(-1, keepdim=True) @ total
    return total
