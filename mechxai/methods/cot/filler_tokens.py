"""Filler tokens: does the chain help by what it says, or by the room it gives?"""

from dataclasses import dataclass
from typing import ClassVar, final

from mechxai.core.method import MethodCard, register
from mechxai.methods.cot._lib.chain_controls import filled
from mechxai.methods.cot._lib.curve import CurveMethod, Variant
from mechxai.methods.cot._lib.questions import ChainQuestions


@final
@register(
    MethodCard(
        name="filler_tokens",
        family="cot",
        kind="chain_curve",
        question="Does a chain help by what it says, or by the room it gives to compute?",
        cost="the chain once, and a reading per step and problem",
        source="Lanham et al. 2023 (arXiv 2307.13702), section 2.6",
        pros="needs no second model",
        cons="a filler is unlike anything the model saw",
    )
)
@dataclass(frozen=True)
class FillerTokens(CurveMethod):
    """Answers behind ever more fillers in place of the chain's words.

    Where they are those of the chain, its words were not needed.

    Attributes: those of `CurveMethod`.
    """

    axis: ClassVar[str] = "fillers, as a share of the chain's length"

    def changed(self, asking: ChainQuestions) -> list[Variant]:
        """Fillers, as long as the first steps of each chain."""
        filler = [asking.batch.wording.filler]
        return [
            Variant(number, count / len(steps), (filled(filler, asking, "".join(steps[:count])),) if count else ())
            for number, steps in enumerate(asking.chains)
            for count in range(len(steps) + 1)
            if steps
        ]
