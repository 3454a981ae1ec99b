"""Paraphrasing: does the answer hang on the chain's wording?"""

from dataclasses import dataclass
from typing import Any, ClassVar, final

from mechxai.core.errors import check_choice
from mechxai.core.method import MethodCard, register
from mechxai.methods.cot._lib.curve import CurveMethod, Variant
from mechxai.methods.cot._lib.questions import ChainQuestions, Steps
from mechxai.methods.cot._lib.rewriting import HOW


@final
@register(
    MethodCard(
        name="paraphrasing",
        family="cot",
        kind="chain_curve",
        question="Does the answer hang on the wording of the chain, beyond its meaning?",
        cost="the chain once; per step and problem a step rewritten, the rest of the chain and a reading",
        source="Lanham et al. 2023 (arXiv 2307.13702), section 2.5",
        pros="would show a code in the wording",
        cons="says nothing of a chain whose meaning is ignored: both keep their answers",
    )
)
@dataclass(frozen=True)
class Paraphrasing(CurveMethod):
    """Says the first steps in other words, lets the model write on from there, and asks for the answer.

    Attributes:
        by: who rewrites steps: ``task``, as the problem has it; ``model``, as ``writer`` (or the model itself) writes
            it.
        writer: a `Generator` for ``by=model``.
        seed: of what is drawn. The others are those of `CurveMethod`.
    """

    axis: ClassVar[str] = "share of the chain in other words"

    by: str = "task"
    writer: Any = None
    seed: int = 0

    def _check_fields(self) -> None:
        check_choice("by", self.by, HOW)

    def changed(self, asking: ChainQuestions) -> list[Variant]:
        """Chains whose first steps are said in other words, written on from there."""
        places = asking.places
        said = asking.rewritten("rephrased", places, by=self.by, writer=self.writer, seed=self.seed)
        other = {(place.problem, place.step): text for place, text in zip(places, said, strict=True)}
        starts: list[Steps | None] = []
        for place in places:
            steps = tuple(other[place.problem, step] for step in range(place.step + 1))
            starts.append(None if None in steps else tuple(str(step) for step in steps))
        completed = asking.completed(starts, [place.problem for place in places])
        variants = [Variant(number, 0.0, steps) for number, steps in enumerate(asking.chains) if steps]
        variants += [
            Variant(place.problem, (place.step + 1) / len(asking.chains[place.problem]), steps)
            for place, steps in zip(places, completed, strict=True)
        ]
        return variants
