"""Edge patching: what every edge of the model carries of a behaviour, exactly, one edge at a time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention, Put
from mechxai.core.errors import check_choice
from mechxai.core.graph import Graph
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, Metric, as_metric
from mechxai.core.result import Result
from mechxai.engine.chunk import scored
from mechxai.engine.contrast import DIRECTIONS, baselines, with_reference
from mechxai.engine.execution import Execution
from mechxai.engine.run import Outcome, run_sweep
from mechxai.engine.several import noted, summed
from mechxai.engine.sweep import Cell, Sweep, run_tokens
from mechxai.methods.circuits.edge_result import EdgeScores, edge_result
from mechxai.model.graph_cuts import Cut, Cuts
from mechxai.model.graph_writes import Blocks, embedded, graph_blocks, writes
from mechxai.model.hooked_model import HookedModel
from mechxai.model.hooking import gathered

_MOST_BYTES = 256 * 2**20  # of values that a sweep's cells put in


@final
@register(
    MethodCard(
        name="edge_patching",
        family="circuits",
        question="Which edges between heads and MLPs carry the behaviour, exactly?",
        cost="one suffix of a forward pass per edge and prompt, from the edge's reader on",
        source="Wang et al. 2022 (arXiv 2211.00593), section 3; Conmy et al. 2023 (arXiv 2304.14997)",
        pros="exact: the ground truth of every approximation",
        cons="one edge at a time: what two carry together, each alone may not show",
    )
)
@dataclass(frozen=True)
class EdgePatching(Method):
    """One reader sees one writer as it is in the other run; everything after the reader follows.

    ``noise`` runs the clean prompt and lets the edge bring what it brings in the corrupted run (what is needed?);
    ``denoise`` runs the corrupted prompt and lets it bring the clean (what suffices?). The reader's norm is made anew.

    Attributes:
        direction: ``noise`` or ``denoise``.
        metric: what is measured.

    Source: the exact effect that edge attribution estimates (Syed et al. 2023, equation 1).
    """

    direction: str = "noise"
    metric: AnyMetric = "logit_diff"

    def __post_init__(self) -> None:
        as_metric(self.metric)
        check_choice("direction", self.direction, DIRECTIONS)

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """The effect of every edge, positive where it supports the behaviour; see `edge_result` for the variables.

        Raises:
            ModelSupportError: a model whose residual stream is not the sum of what its nodes write.
            ShapeError: answers the metric cannot score.
        """
        started = time.perf_counter()
        metric, batch = as_metric(self.metric), batch.to(model.device)
        metric.check(batch)
        blocks = graph_blocks(model)
        graph = blocks.graph
        batch = with_reference(model, batch, metric)
        known = baselines(model, batch, metric, direction=self.direction)
        total = torch.full((len(batch), *graph.reads.shape), torch.nan, dtype=torch.float64)
        outcomes: list[Outcome] = []
        at_once = _prompts_at_once(model, batch, graph)
        for first in range(0, len(batch), at_once):
            rows = slice(first, min(first + at_once, len(batch)))
            part = _Part(self, model, blocks, batch.rows(rows), metric)
            part.measure(total[rows], outcomes, execution)
        values = graph.of_matrix(total).numpy()
        scores = EdgeScores(
            graph,
            known.moved(values),
            metric.unit,
            f"change of {metric.name} that the edge brings",
            known.clean,
            known.corrupted,
        )
        cost = {**summed(outcomes), "seconds": time.perf_counter() - started}
        notes = (*noted(outcomes), *known.notes)
        return edge_result(self, model, batch, found=scores, cost=cost, notes=notes)


def _prompts_at_once(model: HookedModel, batch: ContrastBatch, graph: Graph) -> int:
    """Prompts whose writers, twice, and whose cells' values for one block fit."""
    a = model.architecture
    per_layer = len(graph.writers) * (3 * a.n_heads * a.d_head + a.d_model) + 3 * len(graph.writers) * a.d_model
    return max(1, min(len(batch), _MOST_BYTES // (4 * per_layer * batch.n_pos)))


@dataclass
class _Part:
    """Some prompts: a sweep for each block."""

    method: EdgePatching
    model: HookedModel
    blocks: Blocks
    batch: ContrastBatch
    metric: Metric

    def measure(self, total: Tensor, outcomes: list[Outcome], execution: Execution) -> None:
        """Writes the metric with each edge moved into ``total``, ``[prompt, reader, writer]``."""
        graph = self.blocks.graph
        runs = ("clean", "corrupted") if self.method.direction == "noise" else ("corrupted", "clean")
        base, other = (writes(self.blocks, embedded(self.model, self._tokens(run))) for run in runs)
        cuts = Cuts(self.blocks, base, other.values - base.values)
        with torch.no_grad():
            for layer in range(graph.n_layers):
                self._sweep(list(cuts.into_attention(layer)), total, outcomes, execution=execution, run=runs[0])
                if graph.mlps:
                    self._sweep(list(cuts.into_mlp(layer)), total, outcomes, execution=execution, run=runs[0])
            for writer, last in enumerate(cuts.into_logits()):
                total[:, -1, writer] = self._score(last).double().cpu()

    def _sweep(
        self, found: Sequence[Cut], total: Tensor, outcomes: list[Outcome], *, execution: Execution, run: str
    ) -> None:
        first = self.batch.first_difference
        cells = [_cell(cut, first) for cut in found]
        what = f"edges into block {next(iter(found[0].changed)).layer}"
        outcome = run_sweep(self.model, Sweep(self.batch, run, cells, self.metric), execution, what=what)
        for cut, values in zip(found, outcome.values, strict=True):
            total[:, cut.reader, cut.writer] = values
        outcomes.append(outcome)

    def _tokens(self, run: str) -> Tensor:
        return run_tokens(self.batch, run, self.metric)[0]

    def _score(self, last: Tensor) -> Tensor:
        at = self.metric.positions(self.batch)
        read = last if at is None else gathered(last, at)
        everyone = torch.arange(len(self.batch), device=self.model.device)
        return scored(self.model, self.metric, self.batch, final=self.blocks.plain.final(read), prompts=everyone)


def _cell(cut: Cut, first: Tensor) -> Cell:
    return tuple(Intervention(site, Put(values, first)) for site, values in cut.changed.items())
