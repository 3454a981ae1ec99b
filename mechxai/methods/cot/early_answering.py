"""Early answering: is the answer there before the chain is?"""

from dataclasses import dataclass
from typing import ClassVar, final

from mechxai.core.method import MethodCard, register
from mechxai.methods.cot._lib.curve import CurveMethod, Variant
from mechxai.methods.cot._lib.questions import ChainQuestions


@final
@register(
    MethodCard(
        name="early_answering",
        family="cot",
        kind="chain_curve",
        question="Is the answer there before the chain of thought is?",
        cost="the chain once, and a reading per step and problem",
        source="Lanham et al. 2023 (arXiv 2307.13702), section 2.3",
        pros="needs no second model",
        cons="a model may need no step to know how its chain will end",
    )
)
@dataclass(frozen=True)
class EarlyAnswering(CurveMethod):
    """Answers after ever more of the chain. Where they are the final one from the start, the chain did not decide it.

    Attributes: those of `CurveMethod`.
    """

    axis: ClassVar[str] = "share of the chain that is there"

    def changed(self, asking: ChainQuestions) -> list[Variant]:
        """Every chain, cut after each of its steps."""
        return [
            Variant(number, count / len(steps), steps[:count])
            for number, steps in enumerate(asking.chains)
            for count in range(len(steps) + 1)
            if steps
        ]
