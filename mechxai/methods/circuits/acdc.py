"""ACDC: edges cut one after the other, from the logits back, where cutting costs less than a threshold."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import final

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, check_choice
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import Result, variable
from mechxai.engine.execution import Execution
from mechxai.engine.progress import ProgressBar
from mechxai.methods.circuits._lib.circuit_runs import CircuitRuns
from mechxai.methods.circuits._lib.edge_result import edge_coords
from mechxai.methods.circuits._lib.edge_selection import pruned
from mechxai.methods.circuits._lib.references import REFERENCES
from mechxai.methods.circuits._lib.stream_scores import as_loss
from mechxai.methods.result_parts import run_info
from mechxai.model.graph.writes import graph_blocks
from mechxai.model.hooked_model import HookedModel

THRESHOLDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
_TOGETHER = 32  # cuts that are tried in one go


@final
@register(
    MethodCard(
        name="acdc",
        family="circuits",
        kind="edges",
        question="Which edges are left when all that can be spared are cut, one after the other?",
        cost="two passes per edge, prompt and threshold",
        source="Conmy et al. 2023 (arXiv 2304.14997), algorithm 1",
        pros="each cut is an intervention on what the cuts before it left",
        cons="greedy: depends on the order; a threshold must be chosen, so several are tried",
    )
)
@dataclass(frozen=True)
class Acdc(Method):
    """For every threshold, the edges that remain.

    Edges are tried reader by reader from the logits back, writers from the last to the first. One is cut for good when
    the loss (KL divergence, or what a metric that should be high loses) rises by less than the threshold. Cuts that
    follow one another are tried together, each with those before it; up to the first that must not be, that is what
    trying them one by one gives.

    Attributes:
        thresholds: of the rise in loss, in the metric's unit, growing.
        metric: ``kl_divergence`` to the whole model (the authors' choice), or any that should be high.
        reference: what readers see of writers that are cut off: their output in the ``corrupted`` run, ``zero``, their
            ``mean``, or another prompt's (``resample``).
        seed: of ``resample``.
    """

    thresholds: Sequence[float] = THRESHOLDS
    metric: AnyMetric = "kl_divergence"
    reference: str = "corrupted"
    seed: int = 0

    def _check_fields(self) -> None:
        as_metric(self.metric)
        check_choice("reference", self.reference, REFERENCES)
        growing = all(low < high for low, high in pairwise(self.thresholds))
        if not self.thresholds or self.thresholds[0] <= 0 or not growing:
            raise ConfigError(f"acdc with thresholds={list(self.thresholds)}", allowed="growing numbers above 0")

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """The circuits that remain.

        Returns:
            ``kept`` [threshold, edge], after pruning; ``n_edges``, ``loss`` [threshold]; ``value`` [edge], the largest
            threshold at which the edge remains (0: at none), by which edges can be ranked.

        Raises:
            ModelSupportError: a model whose residual stream is not the sum of what its nodes write.
            ShapeError: answers the metric cannot score.
        """
        started = time.perf_counter()
        metric, batch = as_metric(self.metric), batch.to(model.device)
        metric.check(batch)
        blocks = graph_blocks(model)
        graph = blocks.graph
        runs = CircuitRuns.of(model, blocks, batch, metric=metric, kind=self.reference, seed=self.seed)
        search = _Search(runs, as_loss(metric), replace(execution, progress=False))
        kept, losses = [], []
        total = len(graph.edges) * len(self.thresholds)
        with ProgressBar("acdc", total, shown=execution.progress, unit="edges") as bar:
            for threshold in self.thresholds:
                left, loss = search.cut(threshold, bar)
                kept.append(left)
                losses.append(loss)
        chosen = torch.stack(kept)
        largest = (chosen.numpy() * np.array(self.thresholds)[:, None]).max(0)
        over = ("threshold",)
        data = {
            "value": variable(("edge",), largest, metric.unit, "largest threshold at which the edge remains"),
            "kept": variable(("threshold", "edge"), chosen.numpy(), "truth", "whether the edge remains"),
            "n_edges": variable(over, chosen.sum(1).numpy(), "edges", "edges that remain"),
            "loss": variable(over, np.array(losses), metric.unit, f"{metric.name} of what remains"),
        }
        coords = {"threshold": list(self.thresholds), **edge_coords(graph.edges)}
        cost = {"forward_passes": 2.0 * search.n_runs * len(batch), "seconds": time.perf_counter() - started}
        notes = (f"edges that are cut bring what they bring under reference={self.reference}",)
        return Result(xr.Dataset(data, coords=coords), run_info(self, model, batch, cost=cost, notes=notes))


class _Search:
    """Circuits cut down, each threshold from the whole model on."""

    def __init__(self, runs: CircuitRuns, sign: float, execution: Execution) -> None:
        self._runs, self._graph, self._sign, self._execution = runs, runs.blocks.graph, sign, execution
        self.n_runs = 0
        ends = np.cumsum([0, *self._graph.seen])
        self._order = [edge for low, high in reversed(list(pairwise(ends))) for edge in reversed(range(low, high))]

    def cut(self, threshold: float, bar: ProgressBar) -> tuple[Bool[Tensor, " edge"], float]:
        """What remains at a threshold, and its metric."""
        left = torch.ones(len(self._graph.edges), dtype=torch.bool)
        loss = float(self._losses(left[None])[0])
        waiting = list(self._order)
        while waiting:
            free = ~pruned(self._graph, left[None])[0] & left  # leads nowhere any more: nothing to try
            left = left & ~free
            waiting = [edge for edge in waiting if left[edge]]
            tried = waiting[:_TOGETHER]
            if not tried:
                break
            circuits = left.repeat(len(tried), 1)
            for row, edge in enumerate(tried):
                circuits[row:, edge] = False
            losses = self._losses(circuits)
            rises = np.diff([loss, *losses])
            refused = np.nonzero(rises >= threshold)[0]
            good = int(refused[0]) if len(refused) else len(tried)
            if good:
                left, loss = circuits[good - 1], float(losses[good - 1])
            done = good + bool(len(refused))  # the one that must not be cut is kept for good
            bar.advance(done)
            waiting = waiting[done:]
        left = pruned(self._graph, left[None])[0]
        return left, self._sign * float(self._losses(left[None])[0])

    def _losses(self, circuits: Bool[Tensor, "circuit edge"]) -> Float[np.ndarray, " circuit"]:
        self.n_runs += len(circuits)
        return self._sign * self._runs.scores(circuits, self._execution).numpy().mean(1)
