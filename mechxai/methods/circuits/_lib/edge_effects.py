"""Exact edge effects: the metric when one reader sees one writer as in the other run, edge by edge, by the engine."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.core.edit import Intervention, ReplaceFrom
from mechxai.core.errors import UnfinishedError
from mechxai.core.shapes import PromptInts
from mechxai.engine.contrast import Direction
from mechxai.engine.execution import Execution
from mechxai.engine.run import Outcome, run_sweep
from mechxai.engine.sweep import Cell, Sweep, run_tokens
from mechxai.methods.circuits._lib.prepared_graph import PreparedGraph
from mechxai.methods.circuits._lib.stream_scores import stream_scorer
from mechxai.model.graph.cuts import Cut, Cuts
from mechxai.model.graph.writes import embedded, moves, writes

_MOST_BYTES = 256 * 2**20  # of the values that a sweep's cells put in
Effects = Float[Tensor, "prompt reader writer"]


@dataclass(frozen=True)
class EdgeEffects:
    """Sweeps over edges, each with one writer's output moved to the other run as one reader sees it.

    Attributes:
        prepared: the graph, prompts and metric.
        direction: ``noise`` or ``denoise``.
        mlps_follow: whether MLPs between writer and reader respond to the move; else they are frozen.
        positions: the one position of each prompt at which readers see the move, ``[prompt]``; all by default.
        outcomes: of the finished sweeps.
        unfinished: errors of sweeps whose waves are left to other shards.
    """

    prepared: PreparedGraph
    direction: Direction
    mlps_follow: bool = False
    positions: PromptInts | None = None
    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    unfinished: list[UnfinishedError] = field(default_factory=list[UnfinishedError])

    def scores(self, edges: Bool[Tensor, "reader writer"], execution: Execution) -> Effects:
        """The metric with each of these edges moved; NaN for the others.

        Raises:
            UnfinishedError: this process has finished its shard of every block, and other shards are not done.

        Cost: a suffix of a pass per edge and prompt.
        """
        prepared = self.prepared
        scores = torch.full((len(prepared.batch), *prepared.graph.reads.shape), torch.nan, dtype=torch.float64)
        for rows, sub_batch in prepared.batch.parts(_prompts_at_once(prepared)):
            positions = None if self.positions is None else self.positions[rows]
            edges_of_graph = edges & prepared.graph.reads
            self._fill_scores(
                scores[rows], prepared.on(sub_batch), edges_of_graph, positions=positions, execution=execution
            )
        if self.unfinished:
            raise self.unfinished[-1]
        return scores

    def _fill_scores(
        self,
        scores: Effects,
        prepared: PreparedGraph,
        edges: Bool[Tensor, "reader writer"],
        *,
        positions: PromptInts | None,
        execution: Execution,
    ) -> None:
        """Writes the metric of a sub-batch's edges into its rows of the scores."""
        batch, blocks = prepared.batch, prepared.blocks
        runs = ("clean", "corrupted") if self.direction == "noise" else ("corrupted", "clean")
        run_ids = (run_tokens(batch, run, prepared.metric)[0] for run in runs)
        base, source = (writes(blocks, embedded(prepared.model, tokens)) for tokens in run_ids)
        changes, first = moves(blocks, base.values, source.values), batch.first_difference
        if positions is not None:
            at_position = torch.arange(changes.shape[2], device=changes.device)[None] == positions[:, None]
            changes, first = changes * at_position[None, :, :, None], torch.maximum(first, positions)
        cuts = Cuts(blocks, base, changes, self.mlps_follow)
        with torch.no_grad():
            for layer, layer_cuts in cuts.blocks_in_turn():
                selected = [cut for cut in layer_cuts if edges[cut.reader, cut.writer]]
                if selected:
                    sweep = Sweep(batch, runs[0], [_cell(cut, first) for cut in selected], prepared.metric)
                    try:
                        outcome = run_sweep(prepared.model, sweep, execution, label=f"edges into block {layer}")
                    except UnfinishedError as error:
                        self.unfinished.append(error)
                        continue
                    _fill(scores, selected, outcome)
                    self.outcomes.append(outcome)
            score = stream_scorer(prepared)
            for writer, last in enumerate(cuts.into_logits()):
                if edges[-1, writer]:
                    scores[:, -1, writer] = score(last).double().cpu()


def _fill(scores: Effects, cuts: Sequence[Cut], outcome: Outcome) -> None:
    for cut, values in zip(cuts, outcome.values, strict=True):
        scores[:, cut.reader, cut.writer] = values


def _cell(cut: Cut, first: PromptInts) -> Cell:
    return tuple(Intervention(site, ReplaceFrom(values, first)) for site, values in cut.changed.items())


def _prompts_at_once(prepared: PreparedGraph) -> int:
    """Prompts whose writers, twice, and whose cells' values for one block fit."""
    a, n_writers = prepared.model.architecture, len(prepared.graph.writers)
    per_layer = n_writers * (3 * a.n_heads * a.d_head + a.d_model) + 3 * n_writers * a.d_model
    return max(1, min(len(prepared.batch), _MOST_BYTES // (4 * per_layer * prepared.batch.n_pos)))
