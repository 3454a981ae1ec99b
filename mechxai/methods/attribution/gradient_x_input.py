"""The score's slope along each token's embedding, times its length: what the token adds if the score were linear."""

from dataclasses import dataclass
from typing import ClassVar, final

from mechxai.core.errors import check_choice
from mechxai.core.method import MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.methods.attribution._lib.base import Attribution
from mechxai.methods.attribution._lib.embedding_gradients import gradients, reduced
from mechxai.methods.attribution._lib.input import AttributionInput
from mechxai.methods.attribution._lib.players import KINDS
from mechxai.methods.attribution._lib.scores import Scores


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
        cons="zero is its baseline, like it or not; wrong where the score saturates; does not add up",
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
    players: str = "token"
    special: bool = False

    looks_inside: ClassVar[bool] = True

    def _check_fields(self) -> None:
        as_metric(self.metric)
        check_choice("players", self.players, KINDS)

    def scores(self, problem: AttributionInput) -> Scores:
        """Gradient times embedding, summed over dimensions; Captum's ``Saliency`` makes the gradient."""
        return Scores(reduced(gradients(problem) * problem.embeddings, "sum"))
