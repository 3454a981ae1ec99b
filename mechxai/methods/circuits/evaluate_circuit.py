"""Circuit evaluation: the faithfulness of circuits of growing size, run alone, beside random circuits of their size."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import final

import numpy as np
import torch

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, nearest
from mechxai.core.method import MethodCard, register
from mechxai.core.result import Result, variable
from mechxai.core.statistics import bootstrap_weights
from mechxai.engine.execution import Execution
from mechxai.methods.circuits._lib.circuit_validation import CircuitValidation
from mechxai.methods.circuits._lib.edge_result import edge_coords
from mechxai.methods.circuits._lib.edge_selection import FRACTIONS, pruned, random_circuits, ranked_sizes, top_edges
from mechxai.methods.circuits._lib.faithfulness_curve import FaithfulnessCurve, check_gap
from mechxai.methods.circuits._lib.field_checks import check_at_least
from mechxai.methods.circuits._lib.known_truth import KnownCircuit, recovery_variables
from mechxai.methods.circuits._lib.prepared_graph import PreparedGraph, prepare_graph
from mechxai.model.hooked_model import HookedModel

_BOOTSTRAP_DRAWS = 200  # of prompts, for the interval of the AUROC


@final
@register(
    MethodCard(
        name="evaluate_circuit",
        family="circuits",
        kind="circuit_curve",
        question="Does a circuit alone do what the model does, better than random circuits of its size?",
        cost="the method that finds it, and two passes per circuit, random ones included, and prompt",
        source="Mueller et al. 2025 (arXiv 2504.13151), sections 3.1-3.2; Miller et al. 2024 (arXiv 2407.08734)",
        pros="an intervention on every edge outside; circuits are found and tested on different prompts",
        cons="depends on the reference for cut edges, which the result notes",
    )
)
@dataclass(frozen=True)
class EvaluateCircuit(CircuitValidation):
    """Faithfulness ``(m(C) - m(none)) / (m(all) - m(none))`` of the highest edges, for growing shares of them.

    Edges are found on the first prompts and tested on the others. Circuits are pruned to paths from the embedding to
    the logits. Where a model's circuit is known, the scores are compared with it.

    Attributes:
        of: the method that scores edges, its name (with its defaults), or a file of edges (``.nc``, ``.json``).
        fractions: of the edges.
        rank: edges by ``absolute`` score, or ``signed``.
        reference: what readers see of writers outside the circuit: their output in the ``corrupted`` run, ``zero``,
            their ``mean``, or their output in another prompt's corrupted run (``resample``).
        discover: share of the prompts that find the edges; the others test them. 1 takes all for both.
        split: of the prompts, by ``prompts`` or by ``templates``, so that the circuit is tested on wordings that it
            was not found on.
        random_draws: random circuits per fraction.
        truth: list of the model's known circuit to compare with: ``edges``, or the edges that a task's corrupted
            prompts can show (``visible_swap``, ``visible_abc`` ...); ignored where no circuit is known. Where the list
            names pairs of nodes without the input, the strongest input counts.
        metric: the metric of the runs.
        seed: of the random circuits and of ``resample``.
    """

    fractions: Sequence[float] = FRACTIONS
    random_draws: int = 10
    truth: str = "edges"

    def _check_fields(self) -> None:
        increasing = all(low < high for low, high in pairwise(self.fractions))
        if not self.fractions or not increasing or not 0 < self.fractions[0] <= self.fractions[-1] <= 1:
            raise ConfigError(f"fractions is {list(self.fractions)}", allowed="increasing shares above 0 and at most 1")
        check_at_least(0, random_draws=self.random_draws)

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """The faithfulness of the circuits, and of random circuits.

        Returns:
            ``faithfulness`` [fraction] with 95 % intervals over prompts, ``cpr`` and ``cmd`` (areas under it and under
            its distance from 1, with intervals), ``n_edges`` [fraction] after pruning; ``random_faithfulness``
            [fraction, draw], ``cpr_random``, ``cmd_random`` [draw]; ``score`` [edge], by which edges were ranked; with
            a known circuit ``auroc`` (with an interval where scores are per prompt), ``precision``, ``recall``
            [fraction].

        Raises:
            ModelSupportError: a model whose residual stream is not the sum of what its nodes write.
            ConfigError: too few prompts to find and test on different ones; prompts on which cutting every edge
                changes nothing.
        """
        prepared = prepare_graph(model, batch, self.metric)
        graph, unit = prepared.graph, prepared.metric.unit
        known = self._known_circuit(prepared)
        with self._split_runs(prepared, execution) as runs:
            ends = torch.stack([torch.zeros(len(graph.edges)), torch.ones(len(graph.edges))]).bool()
            none, full = runs.tests.scores(ends, replace(execution, progress=False)).numpy()
            check_gap(none, full, metric=prepared.metric.name, reference=self.reference)
            discovery = self._discovery(runs, execution)
            scores = discovery.data["value"].values
            circuits = pruned(graph, top_edges(scores, self.fractions, rank=self.rank))
            random = random_circuits(
                graph, self.fractions, draws=self.random_draws, generator=np.random.default_rng(self.seed)
            )
            measured = runs.tests.scores(torch.cat([circuits, random]), execution).numpy()
            data = FaithfulnessCurve(self.fractions, none, full, measured).variables(unit)
            n_edges = circuits.sum(1).numpy()
            data["n_edges"] = variable(("fraction",), n_edges, "edges", "edges of the circuit after pruning")
            data["score"] = variable(("edge",), scores, unit, "score by which edges were ranked")
            if known is not None:
                sizes, resampled = np.nan_to_num(ranked_sizes(scores, self.rank)), _resampled_scores(discovery)
                resampled = None if resampled is None else ranked_sizes(resampled, self.rank)
                data |= recovery_variables(known, sizes, circuits.numpy(), resampled=resampled)
            coords = {
                "fraction": list(self.fractions),
                "draw": list(range(self.random_draws)),
                **edge_coords(graph.edges),
            }
            return self._result(runs, data, coords, discovery=discovery, n_runs=measured.size + 2 * len(none))

    def _known_circuit(self, prepared: PreparedGraph) -> KnownCircuit | None:
        """The list ``truth`` of the model's known circuit; None for models without one."""
        card = prepared.model.card.get("truth")
        if not card:
            return None
        lists = [name for name, value in card.items() if isinstance(value, list) and name != "nodes"]
        if self.truth not in lists:
            problem = f"{prepared.model.name} has no known circuit truth={self.truth!r}"
            raise ConfigError(f"{problem}. {nearest(self.truth, lists)}")
        return KnownCircuit.of(prepared.graph, [(edge["src"], edge["dest"]) for edge in card[self.truth]])


def _resampled_scores(discovery: Result) -> np.ndarray | None:
    """Mean scores on bootstrap samples of the prompts, ``[draw, edge]``; None where scores are not per prompt."""
    per_example = discovery.data.get("per_example")
    if per_example is None or per_example.dims != ("prompt", "edge"):
        return None
    return bootstrap_weights(per_example.sizes["prompt"], n_draws=_BOOTSTRAP_DRAWS) @ per_example.values
