"""The queries that all chain-of-thought methods share: a model's chains, and its answers with and without them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from mechxai.core.cached import cached_property
from mechxai.core.errors import ConfigError, ModelSupportError
from mechxai.core.reasoning import Problem, ReasoningBatch, plain, sentences
from mechxai.core.work_clock import work_seconds
from mechxai.engine.execution import Execution
from mechxai.engine.progress import ProgressBar
from mechxai.methods.cot._lib.answer_reading import AnswerReader, AnswerSource, ParsedAnswers
from mechxai.methods.cot._lib.rewriting import ChainStep, RewriteKind, StepRewriter, rewritten_steps
from mechxai.model.generation.cached import CachedGenerator
from mechxai.model.generation.generator import Generator, Writing
from mechxai.model.generation.local import LocalGenerator
from mechxai.model.hooked_model import HookedModel

ChainSource = Literal["own", "given"]
Chain = tuple[str, ...]  # a chain of thought, one sentence per step
_MODELS = "a HookedModel (mx.load) or a Generator (mx.load_generator)"


@dataclass(eq=False)
class ChainQuestions:
    """The queries of one method to one model, with progress bars, cached outputs, cost and failure counts.

    Attributes:
        model: a `HookedModel` or a `Generator`.
        batch: the problems.
        execution: how to run; where it names a folder, the model's outputs are stored there.
        read: how answers are read.
        chain: ``own``, the chain that the model writes; ``given``, the problem's correct chain.
        max_tokens: of a chain.

    Raises:
        ConfigError: a batch of another type, or ``chain="given"`` with problems whose chain is unknown.
        ModelSupportError: an object that is neither a `HookedModel` nor a `Generator`.
    """

    model: HookedModel | Generator
    batch: ReasoningBatch
    execution: Execution
    read: AnswerSource = "auto"
    chain: ChainSource = "own"
    max_tokens: int = 128
    _started: float = field(default_factory=work_seconds, init=False)
    _bars: list[ProgressBar] = field(default_factory=list, init=False)
    _parse_failures: list[tuple[int, bool]] = field(default_factory=list, init=False)  # problem, whether unread
    _truncated: list[bool] = field(default_factory=list, init=False)  # per chain written
    _initial_cost: dict[str, dict[str, float]] = field(default_factory=dict, init=False)
    _step_writer: CachedGenerator | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.batch, ReasoningBatch):
            raise ConfigError(
                f"Chain-of-thought methods do not work on a {type(self.batch).__name__}",
                allowed="a ReasoningBatch, as mx.tasks.cot_arithmetic, cot_logic and cot_jsonl return",
            )
        if not isinstance(self.model, (HookedModel, Generator)):
            raise ModelSupportError(
                f"Chain-of-thought methods do not work on a {type(self.model).__name__}", allowed=_MODELS
            )
        if self.chain == "given" and not all(problem.steps for problem in self.batch.problems):
            raise ConfigError(
                "chain=given needs problems with a known chain, and some have none",
                fix="Use chain=own, or give the problems their steps",
            )

    def on(self, batch: ReasoningBatch) -> "ChainQuestions":
        """The same queries about other problems; the cost of both is counted here, in `cost`."""
        inner = self.generator.inner
        return ChainQuestions(
            inner, batch, self.execution, read=self.read, chain=self.chain, max_tokens=self.max_tokens
        )

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems of the batch."""
        return self.batch.problems

    @cached_property
    def generator(self) -> CachedGenerator:
        """The model as a generator whose outputs are cached."""
        return self._cached(self.model, "said.jsonl", "")

    @cached_property
    def reader(self) -> AnswerReader:
        """The reader of the model's answers."""
        return AnswerReader(self.generator, self.batch, self.read)

    def _cached(self, model: HookedModel | Generator, file: str, account: str) -> CachedGenerator:
        inner = LocalGenerator(model) if isinstance(model, HookedModel) else model
        self._initial_cost[account] = inner.spent()
        folder = self.execution.cells
        return CachedGenerator(inner, None if folder is None else folder / file, self._advance)

    @contextmanager
    def _progress(self, label: str, n_prompts: int) -> Iterator[None]:
        with ProgressBar(label, n_prompts, shown=self.execution.progress, unit="prompts") as bar:
            self._bars.append(bar)
            try:
                yield
            finally:
                self._bars.pop()

    def _advance(self, n_prompts: int) -> None:
        if self._bars:
            self._bars[-1].advance(n_prompts)

    # Chains ----------------------------------------------------------------------------------------------------------

    @cached_property
    def chains(self) -> tuple[Chain, ...]:
        """The chain of every problem."""
        if self.chain == "given":
            return tuple(problem.steps for problem in self.problems)
        return tuple(
            self.continuations([self.batch.wording.chain_start(problem.question) for problem in self.problems])
        )

    @property
    def steps(self) -> list[ChainStep]:
        """Every step of every chain, in order."""
        return [
            ChainStep(problem_id, index, text)
            for problem_id, chain in enumerate(self.chains)
            for index, text in enumerate(chain)
        ]

    def continuations(self, prompts: Sequence[str], *, temperature: float = 0.0, seed: int = 0) -> list[Chain]:
        """The sentences that the model writes after prompts, up to the answer cue."""
        writing = Writing(self.max_tokens, temperature, (self.batch.wording.cue,), seed)
        with self._progress("writing chains", len(prompts)):
            outputs = self.generator.write(prompts, writing)
        self._truncated.extend(not written.ended for written in outputs)
        return [sentences(written.text) for written in outputs]

    def completed_chains(self, beginnings: Sequence[Chain | None], problem_ids: Sequence[int]) -> list[Chain | None]:
        """Chains that begin as given and that the model continues; None for a beginning that is None.

        Args:
            beginnings: the first steps of chains, at least one step each.
            problem_ids: the index of each chain's problem.
        """
        known = [
            (beginning, problem_id)
            for beginning, problem_id in zip(beginnings, problem_ids, strict=True)
            if beginning is not None
        ]
        wording = self.batch.wording
        prompts = [wording.chain(self.problems[problem_id].question, beginning) for beginning, problem_id in known]
        rest = iter(self.continuations(prompts))
        return [None if beginning is None else (*beginning, *next(rest)) for beginning in beginnings]

    def rewritten_steps(
        self, kind: RewriteKind, steps: Sequence[ChainStep], *, by: StepRewriter, writer: Any, seed: int
    ) -> list[str | None]:
        """Steps with a mistake or in other words, as `rewriting.rewritten_steps` returns them.

        Args:
            kind: ``mistake`` or ``rephrased``.
            steps: the steps to rewrite.
            by: ``task`` or ``model``.
            writer: the model that rewrites with ``by="model"``, its cost counted apart; None for the model itself.
            seed: of the changed numbers and of the model's text.

        Raises:
            ModelSupportError: a writer that is neither a `HookedModel` nor a `Generator`.
        """
        generator = self.generator if writer is None else self._writer(writer)
        with self._progress("rewriting steps", len(steps)):
            return rewritten_steps(kind, steps, self.problems, by=by, writer=generator, seed=seed)

    def _writer(self, writer: Any) -> CachedGenerator:
        if not isinstance(writer, (HookedModel, Generator)):
            raise ModelSupportError(
                f"writer={writer!r} is a {type(writer).__name__}, which cannot rewrite steps", allowed=_MODELS
            )
        if self._step_writer is None:
            self._step_writer = self._cached(writer, "rewritten.jsonl", "writer")
        return self._step_writer

    # Answers ---------------------------------------------------------------------------------------------------------

    def answers(self, chains: Sequence[Chain], problem_ids: Sequence[int] | None = None) -> ParsedAnswers:
        """The answers after chains, one chain per problem unless ``problem_ids`` names their problems."""
        problem_ids = range(len(self.batch)) if problem_ids is None else problem_ids
        wording = self.batch.wording
        prompts = [
            wording.prompt(self.problems[problem_id].question, chain)
            for problem_id, chain in zip(problem_ids, chains, strict=True)
        ]
        with self._progress("reading answers", len(prompts)):
            parsed = self.reader(prompts, problem_ids)
        self._parse_failures.extend(
            (problem_id, answer is None) for problem_id, answer in zip(problem_ids, parsed.answers, strict=True)
        )
        return parsed

    @cached_property
    def with_chain(self) -> ParsedAnswers:
        """The answers after the whole chain."""
        return self.answers(self.chains)

    @cached_property
    def without_chain(self) -> ParsedAnswers:
        """The answers without a chain."""
        return self.answers([()] * len(self.batch))

    def correct(self, parsed: ParsedAnswers) -> list[float]:
        """Per problem, 1 for a correct answer, 0 for a wrong one or one that could not be parsed."""
        return [
            float(answer == plain(problem.answer))
            for problem, answer in zip(self.problems, parsed.answers, strict=True)
        ]

    def parse_failures(self) -> np.ndarray:
        """The share of each problem's answers so far that could not be parsed, ``[prompt]``."""
        shares = np.full(len(self.batch), np.nan)
        problem_ids, failed = np.array(self._parse_failures).T if self._parse_failures else np.zeros((2, 0))
        for problem_id in range(len(shares)):
            if (problem_ids == problem_id).any():
                shares[problem_id] = failed[problem_ids == problem_id].mean()
        return shares

    def truncated_share(self) -> float:
        """The share of the chains written so far that were cut off at ``max_tokens``."""
        return float(np.mean(self._truncated)) if self._truncated else 0.0

    def cost(self) -> dict[str, float]:
        """The cost so far of the model, and as ``writer ...`` of the model that rewrote steps; and the seconds."""
        cost = _difference(self._initial_cost.get("", {}), self.generator.spent())
        if self._step_writer is not None:
            writer_cost = _difference(self._initial_cost["writer"], self._step_writer.spent())
            cost |= {f"writer {name}": value for name, value in writer_cost.items()}
        return {**cost, "seconds": work_seconds() - self._started}


def _difference(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    return {name: value - before.get(name, 0.0) for name, value in now.items()}
