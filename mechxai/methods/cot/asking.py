"""What every method of this family begins with: the model as a writer, its chains, answers with and without."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

from mechxai.core.errors import ConfigError, ModelSupportError, check_choice
from mechxai.core.reasoning import Problem, ReasoningBatch, sentences
from mechxai.engine.execution import Execution
from mechxai.engine.progress import Bar
from mechxai.methods.cot.reading import Read, Reader, plain
from mechxai.methods.cot.rewriting import Place
from mechxai.model.generator import Generator, Writing
from mechxai.model.hooked_model import HookedModel
from mechxai.model.kept_generator import KeptGenerator
from mechxai.model.local_generator import LocalGenerator

CHAINS = ("own", "given")
Steps = tuple[str, ...]


@dataclass(frozen=True)
class Asking:
    """One method's questions to one model; bars show how many prompts are done.

    Attributes:
        model: a `HookedModel`, or a `Generator`.
        batch: the problems.
        execution: how to run; where it names a folder, what the model says is kept there.
        read: how answers are read.
        chain: ``own``, what the model writes; ``given``, the problem's right one.
        max_tokens: of a chain.
    """

    model: HookedModel | Generator
    batch: ReasoningBatch
    execution: Execution
    read: str = "auto"
    chain: str = "own"
    max_tokens: int = 128
    started: float = field(default_factory=time.perf_counter)
    _bars: list[Bar] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_choice("chain", self.chain, CHAINS)
        if not isinstance(self.model, (HookedModel, Generator)):
            raise ModelSupportError(
                "A chain of thought was asked",
                got=type(self.model).__name__,
                allowed="a HookedModel (mx.load), or a Generator (mx.load_generator)",
            )
        if self.chain == "given" and not all(problem.steps for problem in self.batch.problems):
            raise ConfigError(
                "chain=given was asked", got="problems without a known chain", fix="chain=own, or give their steps"
            )

    @contextmanager
    def _bar(self, what: str, prompts: int) -> Iterator[None]:
        with Bar(what, prompts, shown=self.execution.progress, unit="prompts") as bar:
            self._bars.append(bar)
            try:
                yield
            finally:
                self._bars.pop()

    def _advance(self, prompts: int) -> None:
        if self._bars:
            self._bars[-1].advance(prompts)

    @cached_property
    def generator(self) -> KeptGenerator:
        """The model as a writer, its answers kept."""
        inner = LocalGenerator(self.model) if isinstance(self.model, HookedModel) else self.model
        folder = self.execution.cells
        return KeptGenerator(inner, None if folder is None else folder / "said.jsonl", self._advance)

    @cached_property
    def reader(self) -> Reader:
        """Reads answers."""
        return Reader(self.generator, self.batch, self.read)

    # Chains ----------------------------------------------------------------------------------------------------------

    @cached_property
    def chains(self) -> tuple[Steps, ...]:
        """The chain of every problem, a sentence each."""
        if self.chain == "given":
            return tuple(problem.steps for problem in self.batch.problems)
        asked = [self.batch.wording.asked(problem.question) for problem in self.batch.problems]
        return tuple(self.continued(asked))

    @property
    def places(self) -> list[Place]:
        """Every step of every chain, in order."""
        return [
            Place(number, step, text) for number, steps in enumerate(self.chains) for step, text in enumerate(steps)
        ]

    def continued(self, texts: Sequence[str], *, temperature: float = 0.0, seed: int = 0) -> list[Steps]:
        """The sentences that the model writes behind texts before it comes to its answer."""
        writing = Writing(self.max_tokens, temperature, (self.batch.wording.cue,), seed)
        with self._bar("writing chains", len(texts)):
            return [sentences(text) for text in self.generator.write(texts, writing)]

    def completed(self, starts: Sequence[Steps | None], of: Sequence[int]) -> list[Steps | None]:
        """Beginnings of chains with what the model writes behind them; None for those that are None.

        Args:
            starts: steps, at least one each.
            of: whose they are.
        """
        known = [(start, number) for start, number in zip(starts, of, strict=True) if start is not None]
        texts = [self.batch.wording.chain(self.problems[number].question, start) for start, number in known]
        more = iter(self.continued(texts))
        return [None if start is None else (*start, *next(more)) for start in starts]

    # Answers ---------------------------------------------------------------------------------------------------------

    def answers(self, chains: Sequence[Steps], of: Sequence[int] | None = None) -> Read:
        """The answers behind chains, one per problem unless ``of`` says whose they are."""
        of = range(len(self.batch)) if of is None else of
        wording, problems = self.batch.wording, self.batch.problems
        prompts = [wording.prompt(problems[number].question, steps) for number, steps in zip(of, chains, strict=True)]
        with self._bar("reading answers", len(prompts)):
            return self.reader(prompts, of)

    @cached_property
    def with_chain(self) -> Read:
        """The answers with the whole chain."""
        return self.answers(self.chains)

    @cached_property
    def without_chain(self) -> Read:
        """The answers without any."""
        return self.answers([()] * len(self.batch))

    def right(self, read: Read, of: Sequence[int] | None = None) -> list[float]:
        """1 for right answers, 0 for others and for those that could not be read."""
        of = range(len(self.batch)) if of is None else of
        return [
            float(answer == plain(self.batch.problems[number].answer))
            for number, answer in zip(of, read.answers, strict=True)
        ]

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The batch's."""
        return self.batch.problems

    def cost(self) -> dict[str, float]:
        """What was spent, and seconds."""
        return {**self.generator.spent(), "seconds": time.perf_counter() - self.started}
