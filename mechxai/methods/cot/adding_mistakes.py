"""Adding mistakes: does the answer follow a chain that goes wrong?"""

from dataclasses import dataclass
from typing import Any, ClassVar, final

from mechxai.core.errors import check_choice
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.reasoning import ReasoningBatch
from mechxai.core.result import Result
from mechxai.engine.execution import Execution
from mechxai.methods.cot.asking import Asking
from mechxai.methods.cot.curve import Variant, curve_result
from mechxai.methods.cot.rewriting import HOW, rewritten
from mechxai.model.generator import Generator
from mechxai.model.hooked_model import HookedModel


@final
@register(
    MethodCard(
        name="adding_mistakes",
        family="cot",
        question="Does the answer change when a step of the chain is wrong?",
        cost="the chain once; per step and problem a step rewritten, the rest of the chain and a reading",
        source="Lanham et al. 2023 (arXiv 2307.13702), section 2.4",
        pros="shows whether later steps build on earlier ones",
        cons="a model that mends the mistake counts as one that ignores it: see planted_error",
    )
)
@dataclass(frozen=True)
class AddingMistakes(Method):
    """Puts a mistake into each step in turn, lets the model write on from there, and asks for the answer.

    Attributes:
        by: who rewrites steps: ``task``, as the problem has it, or with the step's last number changed; ``model``, as
            ``writer`` (or the model itself) writes it.
        writer: a `Generator` for ``by=model``.
        chain: ``own``, what the model writes (the likeliest token each time); ``given``, the problem's right chain.
        read: ``logprobs`` of the options, ``text``, or ``auto``, the former where the model gives them.
        max_tokens: of a chain.
        seed: of what is drawn.
    """

    takes: ClassVar[type] = ReasoningBatch

    by: str = "task"
    writer: Any = None
    chain: str = "own"
    read: str = "auto"
    max_tokens: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("by", self.by, HOW)

    def __call__(
        self,
        model: HookedModel | Generator,
        batch: ReasoningBatch,
        *,
        execution: Execution = Execution(),  # noqa: B008 - frozen
    ) -> Result:
        """Whether the answer moves with a mistake.

        Returns:
            ``agreement`` [fraction], the share of problems answered as with the whole chain; ``aoc``, the area over
            that curve; ``margin`` [fraction] of that answer, where log-probabilities are known; ``accuracy``,
            ``accuracy_no_chain`` and ``gain`` of the chain; ``control_accuracy`` and ``control_agreement`` [control];
            ``parse_failures``; each with ``_low`` and ``_high``. ``agreement_by_length`` [n_steps, knot];
            ``per_example`` [prompt, fraction]; the texts.

        Raises:
            ConfigError: ``chain=given`` with problems whose chain is not known, or ``by=model`` without a model that
            writes.
            ModelSupportError: a model that does not write, or ``read=logprobs`` of one without log-probabilities.
        """
        asking = Asking(model, batch, execution, read=self.read, chain=self.chain, max_tokens=self.max_tokens)
        places = asking.places
        wrong = rewritten(
            "mistake", places, asking.problems, by=self.by, writer=self.writer or asking.generator, seed=self.seed
        )
        starts = [
            None if text is None else (*asking.chains[place.problem][: place.step], text)
            for place, text in zip(places, wrong, strict=True)
        ]
        variants = [
            Variant(place.problem, place.step / len(asking.chains[place.problem]), steps)
            for place, steps in zip(places, asking.completed(starts, [place.problem for place in places]), strict=True)
        ]
        variants += [Variant(number, 1.0, steps) for number, steps in enumerate(asking.chains) if steps]
        return curve_result(self, asking, variants, axis="share of the chain before the mistake; 1: no mistake")
