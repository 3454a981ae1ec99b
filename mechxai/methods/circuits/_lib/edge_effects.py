"""The exact effect of moving what some readers see of some writers, one pair at a time, through the engine."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention, ReplaceFrom
from mechxai.core.errors import UnfinishedError
from mechxai.core.graph import Graph
from mechxai.core.metric import Metric
from mechxai.core.shapes import PromptInts
from mechxai.engine.execution import Execution
from mechxai.engine.run import Outcome, run_sweep
from mechxai.engine.sweep import Cell, Sweep, run_tokens
from mechxai.methods.circuits._lib.stream_scores import score_of
from mechxai.model.graph.cuts import Cut, Cuts
from mechxai.model.graph.writes import Blocks, embedded, writes
from mechxai.model.hooked_model import HookedModel

_MOST_BYTES = 256 * 2**20  # of values that a sweep's cells put in
Effects = Float[Tensor, "prompt reader writer"]


@dataclass(frozen=True)
class EdgeEffects:
    """What is asked of edges.

    Attributes:
        model: the model.
        blocks: its blocks.
        batch: the prompts.
        metric: what is measured.
        direction: ``noise`` or ``denoise``.
        mlps_follow: whether MLPs between writer and reader answer to the move.
        at: the position of each prompt at which alone readers see the move, ``[prompt]``; all by default.
        outcomes: of the sweeps that were run.
        unfinished: of those whose waves are left to other shards.
    """

    model: HookedModel
    blocks: Blocks
    batch: ContrastBatch
    metric: Metric
    direction: str
    mlps_follow: bool = False
    at: PromptInts | None = None
    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    unfinished: list[UnfinishedError] = field(default_factory=list[UnfinishedError])

    def measured(self, chosen: Bool[Tensor, "reader writer"], execution: Execution) -> Effects:
        """The metric with each chosen edge moved; NaN for the others.

        Raises:
            UnfinishedError: this process's shard is done, of every block, and others are not.

        Cost: a suffix of a pass per edge and prompt.
        """
        graph = self.blocks.graph
        total = torch.full((len(self.batch), *graph.reads.shape), torch.nan, dtype=torch.float64)
        at_once = _prompts_at_once(self.model, self.batch, graph)
        for rows, part in self.batch.parts(at_once):
            at = None if self.at is None else self.at[rows]
            self._measure(part, chosen & graph.reads, total[rows], at=at, execution=execution)
        if self.unfinished:
            raise self.unfinished[-1]
        return total

    def _measure(
        self,
        part: ContrastBatch,
        chosen: Bool[Tensor, "reader writer"],
        total: Effects,
        *,
        at: PromptInts | None,
        execution: Execution,
    ) -> None:
        runs = ("clean", "corrupted") if self.direction == "noise" else ("corrupted", "clean")
        tokens = (run_tokens(part, run, self.metric)[0] for run in runs)
        base, other = (writes(self.blocks, embedded(self.model, one)) for one in tokens)
        moves, first = other.values - base.values, part.first_difference
        if at is not None:
            places = torch.arange(moves.shape[2], device=moves.device)[None] == at[:, None]
            moves, first = moves * places[None, :, :, None], torch.maximum(first, at)
        cuts = Cuts(self.blocks, base, moves, self.mlps_follow)
        with torch.no_grad():
            for layer, found in cuts.blocks_in_turn():
                asked = [cut for cut in found if chosen[cut.reader, cut.writer]]
                if asked:
                    sweep = Sweep(part, runs[0], [_cell(cut, first) for cut in asked], self.metric)
                    try:
                        outcome = run_sweep(self.model, sweep, execution, label=f"edges into block {layer}")
                    except UnfinishedError as error:
                        self.unfinished.append(error)
                        continue
                    _fill(total, asked, outcome)
                    self.outcomes.append(outcome)
            score = score_of(self.model, self.blocks, part, metric=self.metric)
            for writer, last in enumerate(cuts.into_logits()):
                if chosen[-1, writer]:
                    total[:, -1, writer] = score(last).double().cpu()


def _fill(total: Effects, asked: Sequence[Cut], outcome: Outcome) -> None:
    for cut, values in zip(asked, outcome.values, strict=True):
        total[:, cut.reader, cut.writer] = values


def _cell(cut: Cut, first: PromptInts) -> Cell:
    return tuple(Intervention(site, ReplaceFrom(values, first)) for site, values in cut.changed.items())


def _prompts_at_once(model: HookedModel, batch: ContrastBatch, graph: Graph) -> int:
    """Prompts whose writers, twice, and whose cells' values for one block fit."""
    a = model.architecture
    per_layer = len(graph.writers) * (3 * a.n_heads * a.d_head + a.d_model) + 3 * len(graph.writers) * a.d_model
    return max(1, min(len(batch), _MOST_BYTES // (4 * per_layer * batch.n_pos)))
