"""Filler tokens: replace the chain by fillers of the same length and read the answer after them."""

from dataclasses import dataclass
from typing import ClassVar, final

from mechxai.core.method import MethodCard, register
from mechxai.methods.cot._lib.chain_controls import repeated_to_length
from mechxai.methods.cot._lib.curve import ChainVariant, CurveMethod
from mechxai.methods.cot._lib.questions import ChainQuestions


@final
@register(
    MethodCard(
        name="filler_tokens",
        family="cot",
        kind="chain_curve",
        question="Does a chain help by its content, or by the extra tokens of computation?",
        cost="one chain per problem, and one answer read per step",
        source="Lanham et al. 2023 (arXiv 2307.13702), section 2.6",
        pros="needs no second model",
        cons="fillers are unlike the text the model was trained on",
    )
)
@dataclass(frozen=True)
class FillerTokens(CurveMethod):
    """Reads the answer after an increasing number of filler tokens in place of the chain.

    Agreement with the chain's answer means that the words of the chain were not needed.

    Attributes and variables of the result: those of `CurveMethod`.
    """

    axis: ClassVar[str] = "fillers, as a share of the chain's length"

    def _variants(self, questions: ChainQuestions) -> list[ChainVariant]:
        """Fillers as long as each prefix of each chain."""
        filler = [questions.batch.wording.filler]
        return [
            ChainVariant(
                problem_id,
                n_steps / len(chain),
                (repeated_to_length(filler, questions, "".join(chain[:n_steps])),) if n_steps else (),
            )
            for problem_id, chain in enumerate(questions.chains)
            for n_steps in range(len(chain) + 1)
            if chain
        ]
