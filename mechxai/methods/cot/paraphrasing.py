"""Paraphrasing: rephrase the first steps of the chain, let the model continue, and read the answer."""

from dataclasses import dataclass
from typing import Any, ClassVar, final

from mechxai.core.method import MethodCard, register
from mechxai.methods.cot._lib.curve import ChainVariant, CurveMethod
from mechxai.methods.cot._lib.questions import Chain, ChainQuestions
from mechxai.methods.cot._lib.rewriting import StepRewriter


@final
@register(
    MethodCard(
        name="paraphrasing",
        family="cot",
        kind="chain_curve",
        question="Does the answer depend on the wording of the chain, beyond its meaning?",
        cost="one chain per problem; per step, one rewriting, one continuation and one answer read",
        source="Lanham et al. 2023 (arXiv 2307.13702), section 2.5",
        pros="would reveal information encoded in the wording",
        cons="cannot tell a chain whose meaning is used from one that is ignored: neither answer changes",
    )
)
@dataclass(frozen=True)
class Paraphrasing(CurveMethod):
    """Rephrases the first steps of the chain, lets the model continue from there, and reads the answer.

    The other attributes and the variables of the result are those of `CurveMethod`.

    Attributes:
        by: what rephrases steps: ``task``, the problem's own paraphrase; ``model``, ``writer`` (or the model itself).
        writer: a `Generator` for ``by=model``.
        seed: of the writer's text.
    """

    axis: ClassVar[str] = "share of the chain that is rephrased"

    by: StepRewriter = "task"
    writer: Any = None
    seed: int = 0

    def _variants(self, questions: ChainQuestions) -> list[ChainVariant]:
        """Chains whose first steps are rephrased, continued by the model."""
        steps = questions.steps
        texts = questions.rewritten_steps("rephrased", steps, by=self.by, writer=self.writer, seed=self.seed)
        rephrased = {(step.problem, step.index): text for step, text in zip(steps, texts, strict=True)}
        beginnings: list[Chain | None] = []
        for step in steps:
            prefix = [rephrased[step.problem, index] for index in range(step.index + 1)]
            beginnings.append(None if None in prefix else tuple(str(text) for text in prefix))
        completed = questions.completed_chains(beginnings, [step.problem for step in steps])
        unchanged = [ChainVariant(number, 0.0, chain) for number, chain in enumerate(questions.chains) if chain]
        return unchanged + [
            ChainVariant(step.problem, (step.index + 1) / len(questions.chains[step.problem]), chain)
            for step, chain in zip(steps, completed, strict=True)
        ]
