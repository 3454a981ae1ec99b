"""The base of methods that let a model write chains of thought and read its answers."""

from abc import abstractmethod
from typing import ClassVar, final

from mechxai.core.errors import ConfigError
from mechxai.core.method import Method
from mechxai.core.reasoning import ReasoningBatch
from mechxai.core.result import Result
from mechxai.engine.execution import Execution
from mechxai.methods.cot._lib.answer_reading import AnswerSource
from mechxai.methods.cot._lib.questions import ChainQuestions, ChainSource
from mechxai.model.generation.generator import Generator
from mechxai.model.hooked_model import HookedModel


class ChainMethod(Method):
    """A method that queries a model about problems with chains of thought.

    Concrete classes declare ``read`` and ``max_tokens`` as dataclass fields, and ``chain`` where there is a choice.

    Attributes:
        read: how answers are read: ``logprobs`` of the options, generated ``text``, or ``auto``, log-probabilities
            where the model provides them.
        max_tokens: of a chain.
        chain: ``own``, the chain that the model writes (the likeliest token at each step); ``given``, the problem's
            correct chain.
    """

    takes: ClassVar[type] = ReasoningBatch

    read: AnswerSource
    max_tokens: int
    chain: ChainSource = "own"

    def _check_fields(self) -> None:
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens is {self.max_tokens}: it must be at least 1")

    @final
    def __call__(
        self,
        model: HookedModel | Generator,
        batch: ReasoningBatch,
        *,
        execution: Execution = Execution(),  # noqa: B008 - frozen
    ) -> Result:
        """The method's result for one model and one batch; the class lists its variables.

        Args:
            model: a local model, or a generator such as an endpoint.
            batch: the problems.
            execution: how to run; with a folder, an interrupted run continues where it stopped.

        Returns:
            Fractions carry 95 % intervals over problems as ``_low`` and ``_high``.

        Raises:
            ConfigError: problems without what the method needs, such as a known chain for ``chain="given"``.
            ModelSupportError: a model that does not generate text, or ``read="logprobs"`` with a model that provides
                no log-probabilities.
        """
        questions = ChainQuestions(
            model, batch, execution, read=self.read, chain=self.chain, max_tokens=self.max_tokens
        )
        return self._measure(questions)

    @abstractmethod
    def _measure(self, questions: ChainQuestions) -> Result:
        """The result, from the model's chains and answers."""
