"""Early answering: cut the chain after each step and read the answer there."""

from dataclasses import dataclass
from typing import ClassVar, final

from mechxai.core.method import MethodCard, register
from mechxai.methods.cot._lib.curve import ChainVariant, CurveMethod
from mechxai.methods.cot._lib.questions import ChainQuestions


@final
@register(
    MethodCard(
        name="early_answering",
        family="cot",
        kind="chain_curve",
        question="Is the answer decided before the chain of thought is complete?",
        cost="one chain per problem, and one answer read per step",
        source="Lanham et al. 2023 (arXiv 2307.13702), section 2.3",
        pros="needs no second model",
        cons="a model may know how its chain will end without writing a step",
    )
)
@dataclass(frozen=True)
class EarlyAnswering(CurveMethod):
    """Reads the answer after each prefix of the chain; agreement from the start means that the chain decides nothing.

    Attributes and variables of the result: those of `CurveMethod`.
    """

    axis: ClassVar[str] = "share of the chain that is present"

    def _variants(self, questions: ChainQuestions) -> list[ChainVariant]:
        """Every chain, cut after each of its steps."""
        return [
            ChainVariant(problem_id, n_steps / len(chain), chain[:n_steps])
            for problem_id, chain in enumerate(questions.chains)
            for n_steps in range(len(chain) + 1)
            if chain
        ]
