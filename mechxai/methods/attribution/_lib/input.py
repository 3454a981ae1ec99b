"""`AttributionInput`: the model, prompts, metric, players and baseline of one attribution."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.cached import cached_property
from mechxai.core.errors import NoSpaceError, ShapeError
from mechxai.core.fields import settle_fields
from mechxai.core.metric import AnyMetric, Metric, as_metric
from mechxai.core.shapes import PerPrompt
from mechxai.engine.execution import Execution
from mechxai.methods.attribution._lib.adapters.protocol import AttributionModel, Deletion, Embeddings
from mechxai.methods.attribution._lib.adapters.select import attribution_model
from mechxai.methods.attribution._lib.adapters.token_ids import needs_tokens
from mechxai.methods.attribution._lib.baselines import Baseline, baseline_embeddings
from mechxai.methods.attribution._lib.players import PlayerKind, Players, players_of
from mechxai.model.backends.memory import available_bytes

_POSITIONS_AT_ONCE = {"cpu": 2048, "cuda": 32768}
_MEMORY_SHARE = 0.6
_MAX_ACTIVATION_BYTES = {"cpu": 2 * 2**30}  # larger chunks are no faster on a CPU


@dataclass(frozen=True)
class InputSettings:
    """The fields that every attribution method has.

    Attributes:
        metric: what is scored.
        baseline: what replaces a deleted token.
        players: what receives a score: ``token``, ``word`` or ``span``.
        special: whether special tokens are players too.
    """

    metric: AnyMetric
    baseline: Baseline
    players: PlayerKind
    special: bool

    def __post_init__(self) -> None:
        settle_fields(self)


@dataclass
class Tally:
    """The cost of an attribution so far, in passes of one prompt.

    Attributes:
        forward: scores computed, one pass each.
        worked: forward passes really run, after what the engine saves.
        backward: gradients computed.
    """

    forward: float = 0.0
    worked: float = 0.0
    backward: float = 0.0

    def as_tensor(self) -> Float[Tensor, " 3"]:
        """Forward, worked and backward passes."""
        return torch.tensor([self.forward, self.worked, self.backward], dtype=torch.float64)

    def add(self, passes: Float[Tensor, " 3"]) -> None:
        """Counts the passes of a piece that an earlier process computed."""
        forward, worked, backward = passes.tolist()
        self.forward += forward
        self.worked += worked
        self.backward += backward


@dataclass(frozen=True, eq=False)
class EndScores:
    """The metric of each prompt as it is, and with every player deleted."""

    target: PerPrompt
    baseline: PerPrompt

    def rows(self, rows: slice) -> "EndScores":
        """The scores of some prompts."""
        return EndScores(self.target[rows], self.baseline[rows])


@dataclass(frozen=True, eq=False)
class AttributionInput:
    """The input of an attribution method.

    Attributes:
        model: the model.
        batch: the prompts; the clean ones are explained.
        metric: what is scored, one number per prompt.
        players: what receives a score.
        embeddings: of the clean prompts, ``[batch, pos, d_model]``.
        baseline: of the prompts with every player deleted, ``[batch, pos, d_model]``.
        execution: how to run.
        tally: the cost so far.
        end_scores: the scores of these embeddings and of this baseline where they are already computed.
    """

    model: AttributionModel
    batch: ContrastBatch
    metric: Metric
    players: Players
    embeddings: Embeddings
    baseline: Embeddings
    execution: Execution
    tally: Tally = field(default_factory=Tally)
    end_scores: EndScores | None = None

    def __len__(self) -> int:
        return len(self.batch)

    def rows(self, rows: slice) -> "AttributionInput":
        """The input of some prompts, with the same tally."""
        return replace(
            self,
            batch=self.batch.rows(rows),
            players=Players(self.players.of_token[rows], self.players.names[rows]),
            embeddings=self.embeddings[rows],
            baseline=self.baseline[rows],
            end_scores=self.end_scores.rows(rows) if self.end_scores else None,
        )

    def consecutive_rows(self, numbers: Int[Tensor, " n"]) -> "AttributionInput":
        """The input of consecutive prompts, by their numbers."""
        return self.rows(slice(int(numbers[0]), int(numbers[-1]) + 1))

    def each(self) -> "Iterator[AttributionInput]":
        """The input of each prompt alone, without its padding.

        Yields:
            One input per prompt.
        """
        for row in range(len(self)):
            yield self.rows(slice(row, row + 1)).without_padding()

    def without_padding(self) -> "AttributionInput":
        """The input without the positions that are padding in every prompt."""
        width = int(self.batch.lengths.max())
        if width == self.batch.n_pos:
            return self
        return replace(
            self,
            batch=replace(self.batch, clean=self.batch.clean[:, :width], corrupted=self.batch.corrupted[:, :width]),
            players=Players(self.players.of_token[:, :width], self.players.names),
            embeddings=self.embeddings[:, :width],
            baseline=self.baseline[:, :width],
        )

    def with_embeddings(self, embeddings: Embeddings) -> "AttributionInput":
        """The input with other embeddings of the prompts.

        Raises:
            ModelSupportError: the model reads token ids in later layers too.
        """
        if getattr(self.model, "replaces_tokens", False):
            raise needs_tokens(self.model.architecture.family, "another embedding")
        return replace(self, embeddings=embeddings, end_scores=None)

    def with_end_scores(self) -> "AttributionInput":
        """The input with its end scores computed, so that its rows need not compute them again."""
        return replace(self, end_scores=EndScores(self.target_score, self.baseline_score))

    # Scores ----------------------------------------------------------------------------------------------------------

    def score(self, embeddings: Embeddings, prompts: Int[Tensor, " batch"]) -> PerPrompt:
        """The metric of rows of embeddings, each of the prompt with that number. Cost: a forward pass per row.

        Differentiable in the embeddings.
        """
        batch = self.batch.rows(prompts)
        self.tally.forward += len(prompts)
        self.tally.worked += len(prompts)
        terms = [
            weight * self.model.score(metric, term_batch, embeddings)
            for weight, metric, term_batch in self.metric.terms(batch)
        ]
        return torch.stack(terms).sum(0)

    def scores(self, embeddings: Embeddings) -> PerPrompt:
        """The metric of every prompt with these embeddings, float64 on the CPU, computed in chunks of prompts."""

        def chunk_scores(rows: Tensor) -> Tensor:
            with torch.no_grad():
                return self.score(embeddings[rows], rows).double().cpu()

        return self.in_row_chunks(chunk_scores)

    @cached_property
    def target_score(self) -> PerPrompt:
        """The metric of the prompts as they are."""
        return self.end_scores.target if self.end_scores else self.scores(self.embeddings)

    @cached_property
    def baseline_score(self) -> PerPrompt:
        """The metric with every player deleted."""
        return self.end_scores.baseline if self.end_scores else self.scores(self.baseline)

    def scores_without(self, absent: Bool[Tensor, "cell batch player"]) -> Float[Tensor, "cell batch"]:
        """The metric with these players deleted, float64 on the CPU. Cost: a forward pass per cell and prompt."""
        return self.scores_without_tokens(self.players.tokens_of(absent))

    def scores_without_tokens(self, absent: Bool[Tensor, "cell batch ..."]) -> Float[Tensor, "cell batch"]:
        """The metric with tokens deleted, ``[cell, batch, pos]``, or dimensions of them, ``[..., d_model]``."""
        total = torch.zeros(absent.shape[:2], dtype=torch.float64)
        for weight, metric, batch in self.metric.terms(self.batch):
            deletion = Deletion(metric, batch, self.embeddings, self.baseline, absent, self.execution)
            result = self.model.deletion_scores(deletion)
            total += weight * result.scores
            self.tally.worked += result.worked
        self.tally.forward += float(absent.flatten(2).any(-1).sum())  # cells that delete nothing need no pass
        return total

    # Memory ----------------------------------------------------------------------------------------------------------

    @property
    def rows_at_once(self) -> int:
        """Number of rows that fit into one pass with gradients."""
        a, width = self.model.architecture, self.batch.n_pos
        per_layer = width * (12 * a.d_model + 4 * max(a.d_mlp, a.d_model)) + 4 * a.n_heads * width * width
        per_row = a.n_layers * per_layer * self.embeddings.element_size()
        device = self.model.device
        most = _MAX_ACTIVATION_BYTES.get(device.type, available_bytes(device))
        budget = self.execution.budget_bytes or min(most, int(_MEMORY_SHARE * available_bytes(device)))
        positions = self.execution.tokens_per_wave or _POSITIONS_AT_ONCE.get(device.type, 2048)
        return max(1, min(positions // width, budget // per_row))

    def in_row_chunks(self, run: Callable[[Tensor], Tensor]) -> Tensor:
        """The joined results of a function of prompt numbers, called with a chunk of them at a time."""
        prompts = torch.arange(len(self), device=self.model.device)
        return self.halving_on_oom(lambda at_once: torch.cat([run(rows) for rows in prompts.split(at_once)]), len(self))

    def halving_on_oom(self, run: Callable[[int], Tensor], n_rows: int) -> Tensor:
        """The result of a function of the number of rows per pass, which is halved when memory runs out.

        Args:
            run: takes the number of rows per pass.
            n_rows: rows in all.

        Raises:
            NoSpaceError: a single row does not fit.
        """
        at_once = min(n_rows, self.rows_at_once)
        while True:
            try:
                return run(at_once)
            except torch.cuda.OutOfMemoryError:
                if at_once == 1:
                    raise NoSpaceError(
                        f"The gradients of one prompt of {self.batch.n_pos} tokens do not fit into the memory of "
                        f"{self.model.device}",
                        fix="Use a shorter prompt, a smaller dtype or another device",
                    ) from None
                at_once //= 2


def attribution_input(
    model: Any, batch: ContrastBatch, settings: InputSettings, *, execution: Execution
) -> AttributionInput:
    """The input that a method's fields describe.

    Raises:
        ConfigError, ShapeError: settings or answers that do not fit the model and batch, before any forward pass.
    """
    adapted, metric = attribution_model(model), as_metric(settings.metric)
    batch = batch.to(adapted.device)
    for _, term, term_batch in metric.terms(batch):
        term.check(term_batch)
    _check_answers(batch, adapted.n_outputs)
    players = players_of(adapted.text, batch, settings.players, special=settings.special)
    embeddings = adapted.embeddings(batch.clean)
    baseline = baseline_embeddings(adapted, batch, settings.baseline, embeddings=embeddings, players=players)
    return AttributionInput(adapted, batch, metric, players, embeddings, baseline, execution)


def _check_answers(batch: ContrastBatch, n_outputs: int) -> None:
    """Refuses answers that the model has no output for."""
    largest = max(int(batch.answers.max()), int(batch.wrong.max()))
    if largest >= n_outputs:
        raise ShapeError(
            f"Answer {largest} lies outside the vocabulary (or the classes)", allowed=f"0 to {n_outputs - 1}"
        )
