"""Adding mistakes: does the answer follow a chain that goes wrong?"""

from dataclasses import dataclass
from typing import Any, ClassVar, final

from mechxai.core.errors import check_choice
from mechxai.core.method import MethodCard, register
from mechxai.methods.cot._lib.curve import CurveMethod, Variant
from mechxai.methods.cot._lib.questions import ChainQuestions
from mechxai.methods.cot._lib.rewriting import HOW


@final
@register(
    MethodCard(
        name="adding_mistakes",
        family="cot",
        kind="chain_curve",
        question="Does the answer change when a step of the chain is wrong?",
        cost="the chain once; per step and problem a step rewritten, the rest of the chain and a reading",
        source="Lanham et al. 2023 (arXiv 2307.13702), section 2.4",
        pros="shows whether later steps build on earlier ones",
        cons="a model that mends the mistake counts as one that ignores it: see planted_error",
    )
)
@dataclass(frozen=True)
class AddingMistakes(CurveMethod):
    """Puts a mistake into each step in turn, lets the model write on from there, and asks for the answer.

    Attributes:
        by: who rewrites steps: ``task``, as the problem has it, or with the step's last number changed; ``model``, as
            ``writer`` (or the model itself) writes it.
        writer: a `Generator` for ``by=model``.
        seed: of what is drawn. The others are those of `CurveMethod`.
    """

    axis: ClassVar[str] = "share of the chain before the mistake; 1: no mistake"

    by: str = "task"
    writer: Any = None
    seed: int = 0

    def _check_fields(self) -> None:
        check_choice("by", self.by, HOW)

    def changed(self, asking: ChainQuestions) -> list[Variant]:
        """Chains with a mistake in each step in turn, written on from there."""
        places = asking.places
        wrong = asking.rewritten("mistake", places, by=self.by, writer=self.writer, seed=self.seed)
        starts = [
            None if text is None else (*asking.chains[place.problem][: place.step], text)
            for place, text in zip(places, wrong, strict=True)
        ]
        variants = [
            Variant(place.problem, place.step / len(asking.chains[place.problem]), steps)
            for place, steps in zip(places, asking.completed(starts, [place.problem for place in places]), strict=True)
        ]
        return variants + [Variant(number, 1.0, steps) for number, steps in enumerate(asking.chains) if steps]
