"""Gradient times input: what each token adds to the score if the score is linear in its embedding."""

from dataclasses import dataclass
from typing import ClassVar, final

from mechxai.core.method import MethodCard, register
from mechxai.core.metric import AnyMetric
from mechxai.methods.attribution._lib.base import Attribution
from mechxai.methods.attribution._lib.embedding_gradients import embedding_gradients, reduce_vectors
from mechxai.methods.attribution._lib.input import AttributionInput
from mechxai.methods.attribution._lib.players import PlayerKind
from mechxai.methods.attribution._lib.scores import TokenScores


@final
@register(
    MethodCard(
        name="gradient_x_input",
        family="attribution",
        kind="attribution",
        question="What would each token add to the score if the score were linear in its embedding?",
        cost="one forward and one backward pass per prompt",
        source="Shrikumar et al. 2016 (arXiv 1605.01713)",
        pros="cheap; signed; exact for linear models",
        cons="its baseline is always zero; wrong where the score saturates; does not add up",
    )
)
@dataclass(frozen=True)
class GradientXInput(Attribution):
    """``sum_d e_d dF/de_d`` for each token's embedding ``e``.

    Attributes:
        metric: what is scored.
        players: ``token``, ``word`` or ``span``, for ``player_value``.
        special: whether special tokens are scored too.
    """

    metric: AnyMetric = "logit_diff"
    players: PlayerKind = "token"
    special: bool = False

    needs_internals: ClassVar[bool] = True
    needs_gradients: ClassVar[bool] = True

    def scores(self, inputs: AttributionInput) -> TokenScores:
        """Gradient times embedding, summed over dimensions; Captum's ``Saliency`` computes the gradient."""
        return TokenScores(reduce_vectors(embedding_gradients(inputs) * inputs.embeddings, "sum"))
