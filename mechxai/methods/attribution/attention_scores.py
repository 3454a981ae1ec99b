"""Attention scores: how much the answer position attends to each token. A view of the mechanism, not an attribution."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from mechxai.core.errors import SiteError, out_of_range
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
        name="attention_scores",
        family="attribution",
        kind="attribution",
        question="Which tokens does the answer position attend to?",
        cost="one forward pass per prompt",
        source="Bahdanau et al. 2014 (arXiv 1409.0473); against it: Jain & Wallace 2019 (arXiv 1902.10186)",
        pros="free; shows where information can come from",
        cons="no attribution: neither what is read there nor whether it is used; most weight lies on the first token",
    )
)
@dataclass(frozen=True)
class AttentionScores(Attribution):
    """The attention of the answer position, fused over heads and averaged over layers.

    Attributes:
        layers: all by default; negative numbers count from the last.
        heads: all by default.
        fusion: of the heads: ``mean``, ``max`` or ``min``.
        bos: ``drop`` leaves special tokens (the attention sink) out and rescales the rest to sum to 1; ``keep`` keeps
            them.
        metric: recorded with its scores, for comparison; attention does not depend on it.
        players: ``token``, ``word`` or ``span``, for ``player_value``.
        special: whether special tokens are scored too.
    """

    layers: Sequence[int] = ()
    heads: Sequence[int] = ()
    fusion: HeadFusion = "mean"
    bos: SinkRule = "keep"
    metric: AnyMetric = "logit_diff"
    players: PlayerKind = "token"
    special: bool = False

    needs_internals: ClassVar[bool] = True

    def scores(self, inputs: AttributionInput) -> TokenScores:
        """The attention to each token; ``on_special`` [prompt] is the weight on tokens without a score.

        Raises:
            SiteError: a layer or head the model does not have.
        """
        a = inputs.model.architecture
        layers = selected("layer", self.layers, a.n_layers)
        unknown_heads = [head for head in self.heads if not 0 <= head < a.n_heads]
        if unknown_heads:
            raise SiteError(out_of_range("head", unknown_heads[0], a.n_heads))

        def weights(rows: Tensor) -> Tensor:
            part = inputs.consecutive_rows(rows)
            patterns = part.model.patterns(part.batch, part.embeddings, layers)
            if self.heads:
                patterns = patterns[:, :, list(self.heads)]
            prompts = torch.arange(len(part), device=patterns.device)
            of_answer = without_padding(patterns, part)[:, prompts, :, part.batch.answer_pos]  # [row, layer, head, src]
            return fuse_heads(of_answer[..., None, :], self.fusion)[:, :, 0].mean(1).cpu()

        return weight_scores(inputs, inputs.in_row_chunks(weights), bos=self.bos)
