"""Early answering: is the answer there before the chain is?"""

from dataclasses import dataclass
from typing import ClassVar, final

from mechxai.core.method import Method, MethodCard, register
from mechxai.core.reasoning import ReasoningBatch
from mechxai.core.result import Result
from mechxai.engine.execution import Execution
from mechxai.methods.cot.asking import Asking
from mechxai.methods.cot.curve import Variant, curve_result
from mechxai.model.generator import Generator
from mechxai.model.hooked_model import HookedModel


@final
@register(
    MethodCard(
        name="early_answering",
        family="cot",
        question="Is the answer there before the chain of thought is?",
        cost="the chain once, and a reading per step and problem",
        source="Lanham et al. 2023 (arXiv 2307.13702), section 2.3",
        pros="needs no second model",
        cons="a model may need no step to know how its chain will end",
    )
)
@dataclass(frozen=True)
class EarlyAnswering(Method):
    """Answers after ever more of the chain. Where they are the final one from the start, the chain did not decide it.

    Attributes:
        chain: ``own``, what the model writes (the likeliest token each time); ``given``, the problem's right chain.
        read: ``logprobs`` of the options, ``text``, or ``auto``, the former where the model gives them.
        max_tokens: of a chain.
    """

    takes: ClassVar[type] = ReasoningBatch

    chain: str = "own"
    read: str = "auto"
    max_tokens: int = 128

    def __call__(
        self,
        model: HookedModel | Generator,
        batch: ReasoningBatch,
        *,
        execution: Execution = Execution(),  # noqa: B008 - frozen
    ) -> Result:
        """How soon the answer is the final one.

        Returns:
            ``agreement`` [fraction], the share of problems answered as with the whole chain; ``aoc``, the area over
            that curve; ``margin`` [fraction] of that answer, where log-probabilities are known; ``accuracy``,
            ``accuracy_no_chain`` and ``gain`` of the chain; ``control_accuracy`` and ``control_agreement`` [control];
            ``parse_failures``; each with ``_low`` and ``_high``. ``agreement_by_length`` [n_steps, knot];
            ``per_example`` [prompt, fraction]; the texts.

        Raises:
            ConfigError: ``chain=given`` with problems whose chain is not known.
            ModelSupportError: a model that does not write, or ``read=logprobs`` of one without log-probabilities.
        """
        asking = Asking(model, batch, execution, read=self.read, chain=self.chain, max_tokens=self.max_tokens)
        variants = [
            Variant(number, count / len(steps), steps[:count])
            for number, steps in enumerate(asking.chains)
            for count in range(len(steps) + 1)
            if steps
        ]
        return curve_result(self, asking, variants, axis="share of the chain that is there")
