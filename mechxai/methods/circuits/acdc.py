"""ACDC: prune edges from the logits back wherever removing one changes the metric by less than a threshold."""

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
from mechxai.core.errors import ConfigError
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import Result, variable
from mechxai.engine.execution import Execution
from mechxai.engine.progress import ProgressBar
from mechxai.methods.circuits._lib.circuit_runs import CircuitRuns
from mechxai.methods.circuits._lib.edge_result import edge_coords
from mechxai.methods.circuits._lib.edge_selection import pruned
from mechxai.methods.circuits._lib.prepared_graph import prepare_graph
from mechxai.methods.circuits._lib.references import ReferenceKind
from mechxai.methods.circuits._lib.stream_scores import loss_sign
from mechxai.methods.result_parts import run_info
from mechxai.model.hooked_model import HookedModel

THRESHOLDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
_CUTS_AT_ONCE = 32


@final
@register(
    MethodCard(
        name="acdc",
        family="circuits",
        kind="edges",
        question="Which edges remain when every edge whose removal hardly matters is cut, one after the other?",
        cost="two passes per edge, prompt and threshold",
        source="Conmy et al. 2023 (arXiv 2304.14997), algorithm 1",
        pros="each cut is an intervention on the circuit that earlier cuts left",
        cons="greedy: depends on the order; a threshold must be chosen, so several are tried",
    )
)
@dataclass(frozen=True)
class Acdc(Method):
    """The edges that remain at every threshold.

    Edges are tried reader by reader from the logits back, writers from the last to the first. An edge is cut for good
    when the loss (KL divergence, or the negative of a metric that should be high) rises by less than the threshold.
    Successive cuts are tried in one batch, each together with the cuts before it; up to the first cut that is refused,
    this equals trying them one by one.

    Attributes:
        thresholds: of the rise in loss, in the metric's unit, increasing.
        metric: ``kl_divergence`` to the whole model (the authors' choice), or any that should be high.
        reference: what readers see of a writer whose edge is cut: its output in the ``corrupted`` run, ``zero``, its
            ``mean``, or its output in another prompt's corrupted run (``resample``).
        seed: of ``resample``.
    """

    thresholds: Sequence[float] = THRESHOLDS
    metric: AnyMetric = "kl_divergence"
    reference: ReferenceKind = "corrupted"
    seed: int = 0

    def _check_fields(self) -> None:
        as_metric(self.metric)
        increasing = all(low < high for low, high in pairwise(self.thresholds))
        if not self.thresholds or self.thresholds[0] <= 0 or not increasing:
            raise ConfigError(f"thresholds is {list(self.thresholds)}", allowed="increasing numbers above 0")

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """The circuit that remains at each threshold.

        Returns:
            ``kept`` [threshold, edge], after pruning; ``n_edges``, ``loss`` [threshold]; ``value`` [edge], the largest
            threshold at which the edge remains (0: at none), by which edges can be ranked.

        Raises:
            ModelSupportError: a model whose residual stream is not the sum of what its nodes write.
            ShapeError: answers the metric cannot score.
        """
        prepared = prepare_graph(model, batch, self.metric)
        graph, metric = prepared.graph, prepared.metric
        runs = CircuitRuns.of(prepared, self.reference, seed=self.seed, execution=execution)
        search = _Search(runs, replace(execution, progress=False))
        circuits, scores, n_edges = [], [], len(graph.edges) * len(self.thresholds)
        with runs.finished, ProgressBar("acdc", n_edges, shown=execution.progress, unit="edges") as bar:
            for threshold in self.thresholds:
                circuit, score = search.circuit(threshold, bar)
                circuits.append(circuit)
                scores.append(score)
        kept = torch.stack(circuits)
        largest = (kept.numpy() * np.array(self.thresholds)[:, None]).max(0)
        over = ("threshold",)
        data = {
            "value": variable(("edge",), largest, metric.unit, "largest threshold at which the edge remains"),
            "kept": variable(("threshold", "edge"), kept.numpy(), "truth", "whether the edge remains"),
            "n_edges": variable(over, kept.sum(1).numpy(), "edges", "edges that remain"),
            "loss": variable(over, np.array(scores), metric.unit, f"{metric.name} of the edges that remain"),
        }
        coords = {"threshold": list(self.thresholds), **edge_coords(graph.edges)}
        cost = prepared.cost({"forward_passes": 2.0 * search.n_runs * len(batch)})
        notes = (
            *runs.finished.notes(),
            f"cut edges bring their writers' output under reference={self.reference}",
        )
        return Result(xr.Dataset(data, coords=coords), run_info(self, model, prepared.batch, cost=cost, notes=notes))


class _Search:
    """The greedy search from the whole model, threshold by threshold."""

    def __init__(self, runs: CircuitRuns, execution: Execution) -> None:
        self._runs, self._graph, self._execution = runs, runs.prepared.graph, execution
        self._sign = loss_sign(runs.prepared.metric)
        self.n_runs = 0
        ends = np.cumsum([0, *self._graph.seen])
        self._order = [edge for low, high in reversed(list(pairwise(ends))) for edge in reversed(range(low, high))]

    def circuit(self, threshold: float, bar: ProgressBar) -> tuple[Bool[Tensor, " edge"], float]:
        """The edges that remain at a threshold, and their metric."""
        circuit = torch.ones(len(self._graph.edges), dtype=torch.bool)
        loss = float(self._losses(circuit[None])[0])
        untried = list(self._order)
        while untried:
            circuit = pruned(self._graph, circuit[None])[0]  # edges on no path any more need no trial
            untried = [edge for edge in untried if circuit[edge]]
            candidates = untried[:_CUTS_AT_ONCE]
            if not candidates:
                break
            circuits = circuit.repeat(len(candidates), 1)
            for row, edge in enumerate(candidates):
                circuits[row:, edge] = False
            losses = self._losses(circuits)
            rises = np.diff([loss, *losses])
            refused = np.nonzero(rises >= threshold)[0]
            n_cut = int(refused[0]) if len(refused) else len(candidates)
            if n_cut:
                circuit, loss = circuits[n_cut - 1], float(losses[n_cut - 1])
            n_done = n_cut + bool(len(refused))  # the refused edge stays for good
            bar.advance(n_done)
            untried = untried[n_done:]
        circuit = pruned(self._graph, circuit[None])[0]
        return circuit, self._sign * float(self._losses(circuit[None])[0])

    def _losses(self, circuits: Bool[Tensor, "circuit edge"]) -> Float[np.ndarray, " circuit"]:
        """The mean loss of each circuit over the prompts."""
        self.n_runs += len(circuits)
        return self._sign * self._runs.scores(circuits, self._execution).numpy().mean(1)
