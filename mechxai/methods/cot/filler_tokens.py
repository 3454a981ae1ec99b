"""Filler tokens: does the chain help by what it says, or by the room it gives?"""

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
        name="filler_tokens",
        family="cot",
        question="Does a chain help by what it says, or by the room it gives to compute?",
        cost="the chain once, and a reading per step and problem",
        source="Lanham et al. 2023 (arXiv 2307.13702), section 2.6",
        pros="needs no second model",
        cons="a filler is unlike anything the model saw",
    )
)
@dataclass(frozen=True)
class FillerTokens(Method):
    """Answers behind ever more fillers in place of the chain's words.

    Where they are those of the chain, its words were not needed.

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
        """Whether fillers do what the chain does.

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
        filler, variants = batch.wording.filler, []
        for number, steps in enumerate(asking.chains):
            words = [0, *(len(step.split()) for step in steps)]
            variants += [
                Variant(number, count / len(steps), (filler * sum(words[: count + 1]),) if count else ())
                for count in range(len(steps) + 1)
                if steps
            ]
        return curve_result(self, asking, variants, axis="fillers, as a share of the chain's words")
