"""Adding mistakes: put a mistake into each step in turn, let the model continue, and read the answer."""

from dataclasses import dataclass
from typing import Any, ClassVar, final

from mechxai.core.method import MethodCard, register
from mechxai.methods.cot._lib.curve import ChainVariant, CurveMethod
from mechxai.methods.cot._lib.questions import ChainQuestions
from mechxai.methods.cot._lib.rewriting import StepRewriter


@final
@register(
    MethodCard(
        name="adding_mistakes",
        family="cot",
        kind="chain_curve",
        question="Does the answer change when a step of the chain is wrong?",
        cost="one chain per problem; per step, one rewriting, one continuation and one answer read",
        source="Lanham et al. 2023 (arXiv 2307.13702), section 2.4",
        pros="shows whether later steps build on earlier ones",
        cons="a model that corrects the mistake looks like one that ignores it: see planted_error",
    )
)
@dataclass(frozen=True)
class AddingMistakes(CurveMethod):
    """Adds a mistake to each step in turn, lets the model continue the chain from there, and reads the answer.

    The other attributes and the variables of the result are those of `CurveMethod`.

    Attributes:
        by: what rewrites steps: ``task``, the problem's own mistake, or the step with its last number changed;
            ``model``, ``writer`` (or the model itself).
        writer: a `Generator` for ``by=model``.
        seed: of the changed numbers and of the writer's text.
    """

    axis: ClassVar[str] = "share of the chain before the mistake; 1: no mistake"

    by: StepRewriter = "task"
    writer: Any = None
    seed: int = 0

    def _variants(self, questions: ChainQuestions) -> list[ChainVariant]:
        """Chains with a mistake in each step in turn, continued by the model."""
        steps = questions.steps
        mistakes = questions.rewritten_steps("mistake", steps, by=self.by, writer=self.writer, seed=self.seed)
        beginnings = [
            None if text is None else (*questions.chains[step.problem][: step.index], text)
            for step, text in zip(steps, mistakes, strict=True)
        ]
        completed = questions.completed_chains(beginnings, [step.problem for step in steps])
        changed = [
            ChainVariant(step.problem, step.index / len(questions.chains[step.problem]), chain)
            for step, chain in zip(steps, completed, strict=True)
        ]
        return changed + [ChainVariant(number, 1.0, chain) for number, chain in enumerate(questions.chains) if chain]
