"""Is a circuit the behaviour? Run alone, everything else cut, beside random circuits of the same size."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, final

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, nearest
from mechxai.core.graph import Graph
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import Result, variable
from mechxai.core.statistics import bootstrap_weights
from mechxai.engine.execution import Execution
from mechxai.methods.circuits._lib.circuit_runs import CircuitRuns
from mechxai.methods.circuits._lib.discovery import check_discovery, edge_method, found_and_confirmed
from mechxai.methods.circuits._lib.edge_result import edge_coords
from mechxai.methods.circuits._lib.edge_selection import FRACTIONS, highest, pruned
from mechxai.methods.circuits._lib.faithfulness_curve import Curve, check_gap
from mechxai.methods.circuits._lib.known_truth import Truth, against_truth
from mechxai.methods.result_parts import run_info
from mechxai.model.graph.writes import graph_blocks
from mechxai.model.hooked_model import HookedModel

_DRAWS = 200  # of prompts, for the interval of the AUROC


@final
@register(
    MethodCard(
        name="evaluate_circuit",
        family="circuits",
        kind="circuit_curve",
        question="Does a circuit alone do what the model does, better than random circuits of its size?",
        cost="the method that finds it, and two passes per circuit, random ones included, and prompt",
        source="Mueller et al. 2025 (arXiv 2504.13151), sections 3.1-3.2; Miller et al. 2024 (arXiv 2407.08734)",
        pros="an intervention on every edge outside; found and confirmed on different prompts",
        cons="depends on what stands in for what is cut, which is named",
    )
)
@dataclass(frozen=True)
class EvaluateCircuit(Method):
    """Faithfulness ``(m(C) - m(none)) / (m(all) - m(none))`` of the highest edges, for growing shares of them.

    Edges are found on the first prompts and confirmed on the others. Circuits lose what lies on no way from the
    embedding to the logits. Of models whose circuit is known, the scores are held against it.

    Attributes:
        of: the method that scores edges, its name (with its defaults), or a file of edges (``.nc``, ``.json``).
        fractions: of the edges.
        rank: edges by ``absolute`` score, or ``signed``.
        reference: what readers see of writers outside the circuit: their output in the ``corrupted`` run, ``zero``,
            their ``mean``, or another prompt's (``resample``).
        discover: share of the prompts on which edges are found; the others confirm. 1 takes all for both.
        split: into these by ``prompts``, or by ``templates``, so that the circuit is confirmed on wordings it was not
            found on.
        random_draws: random circuits per fraction.
        truth: list of the model's known circuit to compare with: ``edges``, or those that a task's corrupted prompts
            can show (``visible_swap``, ``visible_abc`` ...); ignored where no circuit is known. Where it names nodes
            and not by which input one reads another, the strongest input counts.
        metric: what is measured.
        seed: of the random circuits.
    """

    of: Any = "edge_attribution"
    fractions: Sequence[float] = FRACTIONS
    rank: str = "absolute"
    reference: str = "corrupted"
    discover: float = 0.5
    split: str = "prompts"
    random_draws: int = 10
    truth: str = "edges"
    metric: AnyMetric = "logit_diff"
    seed: int = 0

    def _check_fields(self) -> None:
        check_discovery(self.of, self.metric, rank=self.rank, away=self.reference, split=self.split)
        increasing = all(low < high for low, high in pairwise(self.fractions))
        if not self.fractions or not increasing or not 0 < self.fractions[0] <= self.fractions[-1] <= 1:
            raise ConfigError(f"fractions={self.fractions}", allowed="growing shares above 0, up to 1")
        if not 0 < self.discover <= 1 or self.random_draws < 0:
            raise ConfigError(
                f"evaluate_circuit with discover={self.discover}, random_draws={self.random_draws}",
                allowed="discover above 0, up to 1; 0 or more draws",
            )

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """How faithful the circuits are, and how far chance goes.

        Returns:
            ``faithfulness`` [fraction] with 95 % intervals over prompts, ``cpr`` and ``cmd`` (areas under it and under
            its distance from 1, with intervals), ``n_edges`` [fraction] after pruning; ``random_faithfulness``
            [fraction, draw], ``cpr_random``, ``cmd_random`` [draw]; ``score`` [edge], what they were ranked by; with a
            known circuit ``auroc`` (with an interval where scores are known by prompt), ``precision``, ``recall``
            [fraction].

        Raises:
            ModelSupportError: a model whose residual stream is not the sum of what its nodes write.
            ConfigError: too few prompts to find and confirm on different ones; prompts on which cutting every edge
                changes nothing.
        """
        started = time.perf_counter()
        metric, batch = as_metric(self.metric), batch.to(model.device)
        metric.check(batch)
        blocks = graph_blocks(model)
        graph = blocks.graph
        found_on, confirmed_on = found_and_confirmed(batch, self.discover, self.split)
        truth = self._truth(model, graph)
        runs = CircuitRuns.of(model, blocks, confirmed_on, metric=metric, kind=self.reference, seed=self.seed)
        ends = torch.stack([torch.zeros(len(graph.edges)), torch.ones(len(graph.edges))]).bool()
        none, whole = runs.scores(ends, replace(execution, progress=False)).numpy()
        check_gap(none, whole, metric=metric.name, reference=self.reference)
        scores = edge_method(self.of, self.metric)(model, found_on, execution=execution)
        values = scores.data["value"].values
        own = pruned(graph, highest(values, self.fractions, rank=self.rank))
        measured = runs.scores(torch.cat([own, self._random(graph)]), execution).numpy()
        curve = Curve(self.fractions, none, whole, measured)
        data = curve.variables(metric.unit)
        data["n_edges"] = variable(("fraction",), own.sum(1).numpy(), "edges", "edges of the circuit after pruning")
        data["score"] = variable(("edge",), values, metric.unit, "what edges were ranked by")
        if truth is not None:
            sizes, drawn = np.abs if self.rank == "absolute" else np.asarray, _drawn(scores)
            drawn = None if drawn is None else sizes(drawn)
            data |= against_truth(truth, np.nan_to_num(sizes(values)), own.numpy(), drawn=drawn)
        coords = {"fraction": list(self.fractions), "draw": list(range(self.random_draws)), **edge_coords(graph.edges)}
        cost = {
            "forward_passes": scores.info.cost.get("forward_passes", 0.0) + 2.0 * (measured.size + 2 * len(none)),
            "seconds": time.perf_counter() - started,
        }
        notes = (f"edges outside a circuit bring what they bring under reference={self.reference}",)
        if found_on is confirmed_on:
            notes = (*notes, "the circuit was confirmed on the prompts it was found on")
        return Result(xr.Dataset(data, coords=coords), run_info(self, model, batch, cost=cost, notes=notes))

    def _truth(self, model: HookedModel, graph: Graph) -> Truth | None:
        known = model.card.get("truth")
        if not known:
            return None
        lists = [name for name, value in known.items() if isinstance(value, list) and name != "nodes"]
        if self.truth not in lists:
            raise ConfigError(f"truth={self.truth!r} of {model.name}", allowed=nearest(self.truth, lists))
        return Truth.of(graph, [(edge["src"], edge["dest"]) for edge in known[self.truth]])

    def _random(self, graph: Graph) -> Bool[Tensor, "circuit edge"]:
        generator = np.random.default_rng(self.seed)
        drawn = [
            pruned(graph, highest(generator.random(len(graph.edges)), self.fractions, rank="signed"))
            for _ in range(self.random_draws)
        ]
        return torch.cat(drawn) if drawn else torch.zeros(0, len(graph.edges), dtype=torch.bool)


def _drawn(scores: Result) -> np.ndarray | None:
    """Mean scores with prompts drawn anew, ``[draw, edge]``."""
    known = scores.data.get("per_example")
    if known is None or known.dims != ("prompt", "edge"):
        return None
    return bootstrap_weights(known.sizes["prompt"], n_draws=_DRAWS) @ known.values
