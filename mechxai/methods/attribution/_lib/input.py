"""One explanation to be made: a model, prompts, what is scored, what comes and goes, what stands in its place."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import NoSpaceError, ShapeError
from mechxai.core.metric import AnyMetric, Metric, as_metric
from mechxai.core.shapes import PerPrompt
from mechxai.engine.execution import Execution
from mechxai.methods.attribution._lib.adapters.hooked import AttributionModel, Embeddings
from mechxai.methods.attribution._lib.adapters.sequences import attribution_model
from mechxai.methods.attribution._lib.baselines import baseline_embeddings
from mechxai.methods.attribution._lib.players import Players, players_of
from mechxai.model.backends.memory import available_bytes

_POSITIONS_AT_ONCE = {"cpu": 2048, "cuda": 32768}
_MEMORY_SHARE = 0.6
_MOST_BYTES = {"cpu": 2 * 2**30}  # of saved activations; more makes a processor no quicker


@dataclass
class Tally:
    """What an explanation has cost so far, in passes of one prompt.

    Attributes:
        forward: scores asked, one pass each.
        worked: the same, less what the engine saved.
        backward: gradients.
    """

    forward: float = 0.0
    worked: float = 0.0
    backward: float = 0.0


@dataclass(frozen=True, eq=False)
class AttributionInput:
    """What every method of attribution is put to.

    Attributes:
        subject: the model.
        batch: the prompts; the clean ones are explained.
        metric: what is scored, a number per prompt.
        players: what gets a score.
        embeddings: of the clean prompts, ``[batch, pos, d_model]``.
        baseline: of the prompts with every player taken away, likewise.
        execution: how to run.
        tally: what it has cost.
    """

    subject: AttributionModel
    batch: ContrastBatch
    metric: Metric
    players: Players
    embeddings: Embeddings
    baseline: Embeddings
    execution: Execution
    tally: Tally = field(default_factory=Tally)

    def __len__(self) -> int:
        return len(self.batch)

    def rows(self, chosen: slice) -> "AttributionInput":
        """The problem of some prompts, on the same tally."""
        players = Players(self.players.of_token[chosen], self.players.names[chosen])
        parts = {"embeddings": self.embeddings[chosen], "baseline": self.baseline[chosen]}
        found = replace(self, batch=self.batch.rows(chosen), players=players, **parts)
        return found.knowing({name: known[chosen] for name, known in self._known.items()})

    def rows_of(self, numbers: Int[Tensor, " n"]) -> "AttributionInput":
        """The problem of prompts that follow one another, by their numbers."""
        return self.rows(slice(int(numbers[0]), int(numbers[-1]) + 1))

    @property
    def _known(self) -> dict[str, Tensor]:
        return {name: self.__dict__[name] for name in ("target_score", "baseline_score") if name in self.__dict__}

    def knowing(self, scores: Mapping[str, Tensor]) -> "AttributionInput":
        """The same problem, told scores that were made before."""
        self.__dict__.update(scores)
        return self

    def each(self) -> "Iterator[AttributionInput]":
        """The problem of every prompt alone, without its padding.

        Yields:
            One problem per prompt.
        """
        for row in range(len(self)):
            yield self.rows(slice(row, row + 1)).cut()

    def cut(self) -> "AttributionInput":
        """The problem with the positions that no row uses cut away."""
        width = int(self.batch.lengths.max())
        if width == self.batch.n_pos:
            return self
        batch = replace(self.batch, clean=self.batch.clean[:, :width], corrupted=self.batch.corrupted[:, :width])
        players = Players(self.players.of_token[:, :width], self.players.names)
        parts = {"embeddings": self.embeddings[:, :width], "baseline": self.baseline[:, :width]}
        return replace(self, batch=batch, players=players, **parts).knowing(self._known)

    # Scores ----------------------------------------------------------------------------------------------------------

    def score(self, embeddings: Embeddings, prompts: Int[Tensor, " batch"]) -> PerPrompt:
        """The metric of rows with these embeddings, each of a prompt; differentiable. Cost: a forward pass a row."""
        batch = self.batch.rows(prompts)
        self.tally.forward += len(prompts)
        self.tally.worked += len(prompts)
        parts = [
            weight * self.subject.score(metric, scored, embeddings)
            for weight, metric, scored in self.metric.terms(batch)
        ]
        return torch.stack(parts).sum(0)

    def scores(self, embeddings: Embeddings) -> PerPrompt:
        """The metric of every prompt with these embeddings, float64 on the CPU, a few at a time."""

        def some(rows: Tensor) -> Tensor:
            with torch.no_grad():
                return self.score(embeddings[rows], rows).double().cpu()

        return self.in_parts(some)

    @cached_property
    def target_score(self) -> PerPrompt:
        """The metric of the prompts as they are."""
        return self.scores(self.embeddings)

    @cached_property
    def baseline_score(self) -> PerPrompt:
        """The metric with every player taken away."""
        return self.scores(self.baseline)

    def without(self, absent: Bool[Tensor, "cell batch player"]) -> Float[Tensor, "cell batch"]:
        """The metric with these players taken away, float64 on the CPU. Cost: a forward pass per cell and prompt."""
        return self.without_tokens(self.players.tokens_of(absent))

    def without_tokens(self, absent: Bool[Tensor, "cell batch ..."]) -> Float[Tensor, "cell batch"]:
        """The same for tokens, ``[cell, batch, pos]``, or for single numbers of embeddings, ``[..., d_model]``."""
        total = torch.zeros(absent.shape[:2], dtype=torch.float64)
        for weight, metric, scored in self.metric.terms(self.batch):
            found = self.subject.without(
                metric, scored, self.embeddings, baseline=self.baseline, absent=absent, execution=self.execution
            )
            total += weight * found.scores
            self.tally.worked += found.worked
        self.tally.forward += float(absent.flatten(2).any(-1).sum())  # a prompt as it is costs nothing
        return total

    # A few at a time -------------------------------------------------------------------------------------------------

    @property
    def rows_at_once(self) -> int:
        """Rows that go through the model together when gradients are kept."""
        a, width = self.subject.architecture, self.batch.n_pos
        per_layer = width * (12 * a.d_model + 4 * max(a.d_mlp, a.d_model)) + 4 * a.n_heads * width * width
        per_row = a.n_layers * per_layer * self.embeddings.element_size()
        device = self.subject.device
        most = _MOST_BYTES.get(device.type, available_bytes(device))
        budget = self.execution.budget_bytes or min(most, int(_MEMORY_SHARE * available_bytes(device)))
        positions = self.execution.tokens_per_wave or _POSITIONS_AT_ONCE.get(device.type, 2048)
        return max(1, min(positions // width, budget // per_row))

    def in_parts(self, run: Callable[[Tensor], Tensor]) -> Tensor:
        """What a function gives for all prompts, called with some of their numbers at a time."""
        everyone = torch.arange(len(self), device=self.subject.device)
        return self.halving(lambda at_once: torch.cat([run(rows) for rows in everyone.split(at_once)]), len(self))

    def halving(self, run: Callable[[int], Tensor], n_rows: int) -> Tensor:
        """What a function gives that sends so many of ``n_rows`` rows through the model at once; fewer as memory ends.

        Raises:
            NoSpaceError: one row alone does not fit.
        """
        at_once = min(n_rows, self.rows_at_once)
        while True:
            try:
                return run(at_once)
            except torch.cuda.OutOfMemoryError:
                if at_once == 1:
                    raise NoSpaceError(
                        f"One prompt of {self.batch.n_pos} tokens, with gradients",
                        got=f"out of memory on {self.subject.device}",
                        fix="a shorter prompt, a smaller dtype or another device",
                    ) from None
                at_once //= 2


def attribution_input(  # noqa: PLR0913 - the fields that every method of attribution has
    model: Any,
    batch: ContrastBatch,
    *,
    metric: AnyMetric,
    baseline: str,
    players: str,
    special: bool,
    execution: Execution,
) -> AttributionInput:
    """The problem that a method's fields describe; bad ones are refused before any forward pass."""
    subject, measured = attribution_model(model), as_metric(metric)
    batch = batch.to(subject.device)
    for _, one, scored in measured.terms(batch):
        one.check(scored)
    _check_answers(batch, subject.n_outputs)
    found = players_of(subject.text, batch, players, special=special)
    embeddings = subject.embeddings(batch.clean)
    away = baseline_embeddings(subject, batch, baseline, embeddings=embeddings, players=found)
    return AttributionInput(subject, batch, measured, found, embeddings, away, execution)


def _check_answers(batch: ContrastBatch, n_outputs: int) -> None:
    """Refuses answers that the model has no output for."""
    top = max(int(batch.answers.max()), int(batch.wrong.max()))
    if top >= n_outputs:
        raise ShapeError(
            "An answer lies outside the vocabulary (or the classes)", got=top, allowed=f"0 to {n_outputs - 1}"
        )
