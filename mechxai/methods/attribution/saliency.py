"""Saliency: the gradient of the score in each token's embedding."""

from dataclasses import dataclass
from typing import ClassVar, final

from mechxai.core.method import MethodCard, register
from mechxai.core.metric import AnyMetric
from mechxai.methods.attribution._lib.base import Attribution
from mechxai.methods.attribution._lib.embedding_gradients import Reduction, embedding_gradients, reduce_vectors
from mechxai.methods.attribution._lib.input import AttributionInput
from mechxai.methods.attribution._lib.players import PlayerKind
from mechxai.methods.attribution._lib.scores import TokenScores


@final
@register(
    MethodCard(
        name="saliency",
        family="attribution",
        kind="attribution",
        question="To which tokens is the score most sensitive?",
        cost="one forward and one backward pass per prompt",
        source="Simonyan et al. 2013 (arXiv 1312.6034)",
        pros="the cheapest; no baseline",
        cons="a magnitude without a sign; saturates; does not say what deleting a token would do",
    )
)
@dataclass(frozen=True)
class Saliency(Attribution):
    """The gradient of the score in each token's embedding, by Captum's ``Saliency``.

    Attributes:
        metric: what is scored.
        reduce: ``l2``, the gradient's norm, never negative; or ``sum``, over its dimensions, with a sign.
        players: ``token``, ``word`` or ``span``, for ``player_value``.
        special: whether special tokens are scored too.
    """

    metric: AnyMetric = "logit_diff"
    reduce: Reduction = "l2"
    players: PlayerKind = "token"
    special: bool = False

    needs_internals: ClassVar[bool] = True
    needs_gradients: ClassVar[bool] = True

    def scores(self, inputs: AttributionInput) -> TokenScores:
        """The norm, or the sum, of each gradient."""
        values = reduce_vectors(embedding_gradients(inputs), self.reduce)
        return TokenScores(values, units=f"{inputs.metric.unit} per unit of embedding")
