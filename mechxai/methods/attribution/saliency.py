"""How fast the score changes with each token's embedding."""

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
        name="saliency",
        family="attribution",
        kind="attribution",
        question="To which tokens is the score most sensitive?",
        cost="one forward and one backward pass per prompt",
        source="Simonyan et al. 2013 (arXiv 1312.6034)",
        pros="the cheapest; no baseline",
        cons="a size without a sense; saturates; says nothing of taking a token away",
    )
)
@dataclass(frozen=True)
class Saliency(Attribution):
    """The gradient of the score in each token's embedding, by Captum's ``Saliency``.

    Attributes:
        metric: what is scored.
        reduce: ``l2``, the gradient's length, never negative; or ``sum``, over its dimensions, with a sign.
        players: ``token``, ``word`` or ``span``, for ``player_value``.
        special: whether special tokens are scored too.
    """

    metric: AnyMetric = "logit_diff"
    reduce: str = "l2"
    players: str = "token"
    special: bool = False

    looks_inside: ClassVar[bool] = True

    def _check_fields(self) -> None:
        as_metric(self.metric)
        check_choice("reduce", self.reduce, ("l2", "sum"))
        check_choice("players", self.players, KINDS)

    def scores(self, problem: AttributionInput) -> Scores:
        """The length, or the sum, of each gradient."""
        found = reduced(gradients(problem), self.reduce)
        return Scores(found, units=f"{problem.metric.unit} per unit of embedding")
