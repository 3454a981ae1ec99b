"""What every method of this family begins with: the model as a writer, its chains, answers with and without."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from mechxai.core.errors import ConfigError, ModelSupportError, check_choice
from mechxai.core.reasoning import Problem, ReasoningBatch, plain, sentences
from mechxai.engine.execution import Execution
from mechxai.engine.progress import Bar
from mechxai.methods.cot._lib.answer_reading import READS, ParsedAnswer, Reader
from mechxai.methods.cot._lib.rewriting import Place, rewritten
from mechxai.model.generation.cached import CachedGenerator
from mechxai.model.generation.generator import Generator, Writing
from mechxai.model.generation.local import LocalGenerator
from mechxai.model.hooked_model import HookedModel

CHAINS = ("own", "given")
Steps = tuple[str, ...]


@dataclass(frozen=True)
class ChainQuestions:
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
    _unread: list[tuple[int, bool]] = field(default_factory=list)
    _cut_short: list[bool] = field(default_factory=list)
    _paid: dict[str, dict[str, float]] = field(default_factory=dict)
    _writer: list[CachedGenerator] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_asking(self.read, self.chain, self.max_tokens)
        if not isinstance(self.batch, ReasoningBatch):
            raise ConfigError(
                "A chain of thought was asked",
                got=f"a {type(self.batch).__name__}",
                allowed="a ReasoningBatch, as mx.tasks.cot_arithmetic, cot_logic and cot_jsonl make them",
            )
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
    def generator(self) -> CachedGenerator:
        """The model as a writer, its answers kept."""
        return self._kept(self.model, "said.jsonl", "")

    def _kept(self, model: HookedModel | Generator, file: str, paid_as: str) -> CachedGenerator:
        inner = as_writer(model)
        self._paid[paid_as] = inner.spent()
        folder = self.execution.cells
        return CachedGenerator(inner, None if folder is None else folder / file, self._advance)

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
        asked = [self.batch.wording.chain_start(problem.question) for problem in self.batch.problems]
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
            found = self.generator.write(texts, writing)
        self._cut_short.extend(not written.ended for written in found)
        return [sentences(written.text) for written in found]

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

    def rewritten(self, kind: str, places: Sequence[Place], *, by: str, writer: Any, seed: int) -> list[str | None]:
        """Steps, wrong or in other words, as `rewriting.rewritten`; a model other than the one asked is paid apart."""
        own = self.generator if writer is None else self._other(writer)
        with self._bar("rewriting steps", len(places)):
            return rewritten(kind, places, self.problems, by=by, writer=own, seed=seed)

    def _other(self, writer: Any) -> CachedGenerator:
        if not isinstance(writer, (HookedModel, Generator)):
            raise ModelSupportError(
                "Steps rewritten by a model were asked",
                got=f"writer={type(writer).__name__}",
                allowed="a HookedModel (mx.load), or a Generator (mx.load_generator)",
            )
        if not self._writer:
            self._writer.append(self._kept(writer, "rewritten.jsonl", "writer"))
        return self._writer[0]

    def answers(self, chains: Sequence[Steps], of: Sequence[int] | None = None) -> ParsedAnswer:
        """The answers behind chains, one per problem unless ``of`` says whose they are."""
        of = range(len(self.batch)) if of is None else of
        wording, problems = self.batch.wording, self.batch.problems
        prompts = [wording.prompt(problems[number].question, steps) for number, steps in zip(of, chains, strict=True)]
        with self._bar("reading answers", len(prompts)):
            found = self.reader(prompts, of)
        self._unread.extend((number, answer is None) for number, answer in zip(of, found.answers, strict=True))
        return found

    def unread(self) -> np.ndarray:
        """Of each problem's answers so far, the share that could not be read, ``[prompt]``."""
        found = np.full(len(self.batch), np.nan)
        of, failed = np.array(self._unread).T if self._unread else np.zeros((2, 0))
        for number in range(len(found)):
            if (of == number).any():
                found[number] = failed[of == number].mean()
        return found

    def cut_short(self) -> float:
        """The share of what was written so far that was still going on when its tokens ran out."""
        return float(np.mean(self._cut_short)) if self._cut_short else 0.0

    @cached_property
    def with_chain(self) -> ParsedAnswer:
        """The answers with the whole chain."""
        return self.answers(self.chains)

    @cached_property
    def without_chain(self) -> ParsedAnswer:
        """The answers without any."""
        return self.answers([()] * len(self.batch))

    def right(self, read: ParsedAnswer, of: Sequence[int] | None = None) -> list[float]:
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
        """What was spent since this began, by the model and (``writer ...``) by whoever rewrote steps; seconds."""
        spent = _since(self._paid.get("", {}), self.generator.spent())
        if "writer" in self._paid:
            own = _since(self._paid["writer"], self._writer[0].spent())
            spent |= {f"writer {name}": value for name, value in own.items()}
        return {**spent, "seconds": time.perf_counter() - self.started}


def check_asking(read: str, chain: str, max_tokens: int) -> None:
    """Refuses settings that all methods of the family share.

    Raises:
        ConfigError: names the closest choice.
    """
    check_choice("read", read, READS)
    check_choice("chain", chain, CHAINS)
    Writing(max_tokens)


def as_writer(model: HookedModel | Generator) -> Generator:
    """A model as a writer."""
    return LocalGenerator(model) if isinstance(model, HookedModel) else model


def _since(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    return {name: value - before.get(name, 0.0) for name, value in now.items()}
