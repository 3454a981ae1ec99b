"""Edge attribution: a first-order estimate of the effect of patching every edge, from a few gradients (EAP, EAP-IG)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError
from mechxai.core.graph import Graph
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import Result
from mechxai.engine.checkpoint import TENSORS
from mechxai.engine.contrast import Direction, Run
from mechxai.engine.execution import Execution
from mechxai.engine.finished import FinishedPieces
from mechxai.engine.progress import ProgressBar
from mechxai.methods.circuits._lib.edge_result import EdgeScores, edge_result
from mechxai.methods.circuits._lib.field_checks import check_at_least
from mechxai.methods.circuits._lib.first_order import FirstOrderScores, Steps, passes_from_writers
from mechxai.methods.circuits._lib.pair_runs import PairRuns
from mechxai.methods.circuits._lib.prepared_graph import PreparedGraph, prepare_graph
from mechxai.methods.circuits._lib.references import Reference, ReferenceKind, reference
from mechxai.methods.circuits._lib.stream_scores import budget_bytes
from mechxai.model.hooked_model import HookedModel

AttributionKind = Literal["eap", "clean_corrupted", "eap_ig_inputs", "eap_ig_activations"]
StepRule = Literal["midpoint", "left", "right", "gauss"]
_MOST_BYTES = 512 * 2**20
_TAPE = 100  # vectors per layer that a few runs store for their gradients


@final
@register(
    MethodCard(
        name="edge_attribution",
        family="circuits",
        kind="edges",
        question="Which edges between heads and MLPs carry the behaviour, to first order?",
        cost="two forward passes and one backward per prompt (eap_ig_inputs: two, and one of each per step; "
        "eap_ig_activations: of each per step and layer, half of it on average)",
        source="Syed et al. 2023 (arXiv 2310.10348); Hanna et al. 2024 (arXiv 2403.17806); Mueller et al. 2025 "
        "(arXiv 2504.13151)",
        pros="every edge at once, for a few passes over the positions that differ",
        cons="first order: misses saturated edges (a sharp softmax), which EdgePatching shows",
    )
)
@dataclass(frozen=True)
class EdgeAttribution(Method):
    """``(written - reference) . d metric / d read`` for every edge: positive where it supports the behaviour.

    A head's queries, keys and values are separate inputs. The gradient at an input is the total gradient through it.

    Attributes:
        kind: ``eap``, one gradient (of the clean run, or, denoising, of the corrupted); ``clean_corrupted``, the mean
            of both; ``eap_ig_inputs``, the mean between the corrupted embeddings and the clean;
            ``eap_ig_activations``, for each writer the mean between its reference output and its clean output, with
            all later nodes recomputed (heads of a layer move together).
        direction: of ``eap``: ``noise`` takes the gradient at the clean run, ``denoise`` at the corrupted.
        steps: of both ``eap_ig`` kinds.
        rule: position of the steps: ``midpoint``, ``left`` (from the corrupted run on, as in the authors' code),
            ``right`` (up to the clean run, as in their paper) or ``gauss`` (Gauss-Legendre).
        reference: what replaces a writer's output: that of the ``corrupted`` run, ``zero``, its ``mean`` over the
            corrupted prompts, or that of another prompt's corrupted run (``resample``); only ``eap`` and
            ``eap_ig_activations`` take others than ``corrupted``.
        metric: the metric to explain.
        seed: of ``resample``.

    Source: as in the card; the sign is that of ``clean - corrupted``, so that edges that restore are positive.
    """

    kind: AttributionKind = "eap_ig_inputs"
    direction: Direction = "noise"
    steps: int = 5
    rule: StepRule = "midpoint"
    reference: ReferenceKind = "corrupted"
    metric: AnyMetric = "logit_diff"
    seed: int = 0

    def _check_fields(self) -> None:
        as_metric(self.metric)
        check_at_least(1, steps=self.steps)
        takes_any = self.kind == "eap_ig_activations" or (self.kind == "eap" and self.direction == "noise")
        if self.reference != "corrupted" and not takes_any:
            raise ConfigError(
                f"reference={self.reference} does not fit kind={self.kind} with direction={self.direction}, whose "
                "gradients need a run of the reference",
                allowed="kind=eap with direction=noise, or kind=eap_ig_activations, with this reference; or "
                "reference=corrupted",
            )

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """A score for every edge; see `edge_result` for the variables.

        Raises:
            ModelSupportError: a model whose residual stream is not the sum of what its nodes write.
            ShapeError: answers the metric cannot score.
        """
        prepared = prepare_graph(model, batch, self.metric).with_clean_logprobs()
        graph, metric = prepared.graph, prepared.metric
        cut = reference(prepared, self.reference, seed=self.seed)
        parts: list[Mapping[str, Tensor]] = []
        question = ("edge attribution", self, model, prepared.batch, cut)
        with (
            FinishedPieces(execution.cells, *question, serializer=TENSORS) as finished,
            ProgressBar("edge attribution", len(batch), shown=execution.progress, unit="prompts") as bar,
        ):
            for rows, sub_batch in prepared.batch.parts(_prompts_at_once(prepared, execution)):
                name = f"{rows.start} {len(sub_batch)}"
                parts.append(finished.take(name, partial(self._part, prepared, sub_batch, rows, cut=cut)))
                bar.advance(len(sub_batch))
        scores, clean, corrupted = (
            torch.cat([part[name] for part in parts]).double().numpy() for name in ("scores", "clean", "corrupted")
        )
        meaning = f"first-order change of {metric.name} that the edge brings"
        edges = EdgeScores(graph, scores, metric.unit, meaning, clean, corrupted)
        n_computed = sum(float(part["n_computed"]) for part in parts)
        return edge_result(self, prepared, edges, cost=prepared.cost(self._passes(len(batch), n_computed, graph)))

    def _part(
        self, prepared: PreparedGraph, sub_batch: ContrastBatch, rows: slice, *, cut: Reference
    ) -> Mapping[str, Tensor]:
        """The scores of some prompts.

        Returns:
            ``scores`` [prompt, edge], ``clean`` and ``corrupted`` [prompt], the metric of both runs; ``n_computed``,
            the prompts, each times the share of its positions that runs compute.
        """
        runs = PairRuns(prepared.on(sub_batch), full_run=self._full_run, skip_shared=self.reference == "corrupted")
        writes = None if cut.kind == "corrupted" else partial(cut.written, prepared, rows=rows)
        first_order = FirstOrderScores(prepared.blocks, runs, self.integration_steps(), writes)
        table = first_order.along_writers() if self._by_writer else first_order.along_inputs()
        return {
            "scores": prepared.graph.of_matrix(table).cpu(),
            "clean": runs.endpoint("clean").scores.detach().cpu(),
            "corrupted": runs.endpoint("corrupted").scores.detach().cpu(),
            "n_computed": torch.tensor(runs.computed_share * len(sub_batch), dtype=torch.float64),
        }

    @property
    def _by_writer(self) -> bool:
        return self.kind == "eap_ig_activations"

    @property
    def _full_run(self) -> Run:
        """The run that needs no gradient, so that it covers all positions once."""
        return "corrupted" if self.kind == "eap" and self.direction == "noise" else "clean"

    def _passes(self, n_prompts: int, n_computed: float, graph: Graph) -> dict[str, float]:
        """Passes: one full run, and the others over the positions that differ."""
        steps = self.integration_steps()
        if self._by_writer:
            both = len(steps) * passes_from_writers(graph) * n_computed
            return {"forward_passes": n_prompts + n_computed + both, "backward_passes": both}
        n_between = sum(at not in (0.0, 1.0) for at, _ in steps)
        return {
            "forward_passes": n_prompts + (1 + n_between) * n_computed,
            "backward_passes": len(steps) * n_computed,
        }

    def integration_steps(self) -> Steps:
        """Points between the corrupted run (0) and the clean run (1) at which gradients are taken, with weights."""
        if self.kind == "eap":
            return [(1.0 if self.direction == "noise" else 0.0, 1.0)]
        if self.kind == "clean_corrupted":
            return [(0.0, 0.5), (1.0, 0.5)]
        if self.rule == "gauss":
            nodes, weights = np.polynomial.legendre.leggauss(self.steps)
            return [(float(node + 1) / 2, float(weight) / 2) for node, weight in zip(nodes, weights, strict=True)]
        shift = {"left": 0.0, "midpoint": 0.5, "right": 1.0}[self.rule]
        return [((step + shift) / self.steps, 1 / self.steps) for step in range(self.steps)]


def _prompts_at_once(prepared: PreparedGraph, execution: Execution) -> int:
    """How many prompts run together, so that all writers of their runs and all readers' gradients fit."""
    model, graph, batch = prepared.model, prepared.graph, prepared.batch
    size = torch.finfo(model.dtype).bits // 8
    vectors = 4 * len(graph.writers) + 2 * len(graph.readers) + _TAPE * graph.n_layers
    per_prompt = vectors * batch.n_pos * model.architecture.d_model * size
    return max(1, min(len(batch), budget_bytes(model, execution, most=_MOST_BYTES) // per_prompt))
