"""Edge attribution: to first order, what every edge of the model carries of a behaviour, from a few gradients."""

import time
from dataclasses import dataclass
from functools import partial
from typing import final

import numpy as np
import torch
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, check_choice
from mechxai.core.graph import Graph
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import Result
from mechxai.engine.contrast import DIRECTIONS, with_reference
from mechxai.engine.execution import Execution
from mechxai.engine.progress import ProgressBar
from mechxai.methods.circuits._lib.edge_result import EdgeScores, edge_result
from mechxai.methods.circuits._lib.first_order import FirstOrder, later_passes
from mechxai.methods.circuits._lib.pair_runs import PairRuns
from mechxai.methods.circuits._lib.references import REFERENCES, reference
from mechxai.methods.circuits._lib.stream_scores import budget_bytes
from mechxai.model.graph.writes import graph_blocks
from mechxai.model.hooked_model import HookedModel

KINDS = ("eap", "clean_corrupted", "eap_ig_inputs", "eap_ig_activations")
RULES = ("midpoint", "left", "right", "gauss")
_MOST_BYTES = 512 * 2**20
_TAPE = 100  # vectors of a layer that a few runs and their gradients keep


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
        pros="every edge at once, at the price of a few passes, and only of the positions that differ",
        cons="first order: saturated edges (a sharp softmax) are missed, which EdgePatching shows",
    )
)
@dataclass(frozen=True)
class EdgeAttribution(Method):
    """``(written - reference) . d metric / d read`` for every edge: positive where it supports the behaviour.

    Heads' queries, keys and values are inputs of their own. The gradient at an input is that of all that comes of it.

    Attributes:
        kind: ``eap``, one gradient (of the clean run, or, denoising, of the corrupted); ``clean_corrupted``, the mean
            of both; ``eap_ig_inputs``, the mean along the way from the corrupted embeddings to the clean;
            ``eap_ig_activations``, for each writer the mean along the way of what it writes itself, from the reference
            to the clean run, all else following (heads of a layer go together).
        direction: of ``eap``: ``noise`` takes the gradient at the clean run, ``denoise`` at the corrupted.
        steps: of both ``eap_ig``.
        rule: where the steps lie: ``midpoint``, ``left`` (from the corrupted run on, as the authors' code has it),
            ``right`` (up to the clean run, as their paper has it) or ``gauss`` (Gauss-Legendre).
        reference: what stands in for a writer: the ``corrupted`` run, ``zero``, its ``mean`` over the corrupted
            prompts, or the corrupted run of another prompt (``resample``); others than the first for ``eap`` and
            ``eap_ig_activations`` alone.
        metric: what is explained.
        seed: of ``resample``.

    Source: as in the card; the sign is that of ``clean - corrupted``, so that what restores is positive.
    """

    kind: str = "eap_ig_inputs"
    direction: str = "noise"
    steps: int = 5
    rule: str = "midpoint"
    reference: str = "corrupted"
    metric: AnyMetric = "logit_diff"
    seed: int = 0

    def _check_fields(self) -> None:
        as_metric(self.metric)
        check_choice("kind", self.kind, KINDS)
        check_choice("direction", self.direction, DIRECTIONS)
        check_choice("rule", self.rule, RULES)
        check_choice("reference", self.reference, REFERENCES)
        if self.steps < 1:
            raise ConfigError(f"edge_attribution with steps={self.steps}", allowed="1 or more")
        free = self.kind == "eap_ig_activations" or (self.kind == "eap" and self.direction == "noise")
        if self.reference != "corrupted" and not free:
            raise ConfigError(
                f"edge_attribution with reference={self.reference}, kind={self.kind}, direction={self.direction}",
                got="a gradient on the way to a run that there is none of",
                allowed="kind=eap with direction=noise, or kind=eap_ig_activations, with this reference; or "
                "reference=corrupted",
            )

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """A score for every edge; see `edge_result` for the variables.

        Raises:
            ModelSupportError: a model whose residual stream is not the sum of what its nodes write.
            ShapeError: answers the metric cannot score.
        """
        started = time.perf_counter()
        metric, batch = as_metric(self.metric), batch.to(model.device)
        metric.check(batch)
        blocks = graph_blocks(model)
        batch = with_reference(model, batch, metric)
        known = reference(model, blocks, batch, kind=self.reference, seed=self.seed)
        found: list[Tensor] = []
        ends: list[tuple[Tensor, Tensor]] = []
        passes = 0.0
        with ProgressBar("edge attribution", len(batch), shown=execution.progress, unit="prompts") as bar:
            for rows, part in batch.parts(_prompts_at_once(model, batch, blocks.graph, execution=execution)):
                runs = PairRuns(
                    model, blocks, part, metric=metric, whole=self._whole, apart=self.reference == "corrupted"
                )
                away = partial(known.written, model, blocks, batch, rows=rows) if known.kind != "corrupted" else None
                scores = FirstOrder(blocks.graph, runs, self.along(), away)
                edges = scores.along_writers() if self._by_writer else scores.along_inputs()
                found.append(blocks.graph.of_matrix(edges))
                ends.append((runs.end("clean").scores, runs.end("corrupted").scores))
                passes += runs.computed * len(part)
                bar.advance(len(part))
        clean, corrupted = (torch.cat([one[end] for one in ends]).double().cpu().numpy() for end in (0, 1))
        whole = EdgeScores(
            blocks.graph,
            torch.cat(found).double().cpu().numpy(),
            metric.unit,
            f"first-order change of {metric.name} that the edge brings",
            clean,
            corrupted,
        )
        cost = {**self._passes(len(batch), passes, blocks.graph), "seconds": time.perf_counter() - started}
        return edge_result(self, model, batch, found=whole, cost=cost)

    @property
    def _by_writer(self) -> bool:
        return self.kind == "eap_ig_activations"

    @property
    def _whole(self) -> str:
        """The run that no gradient is taken in, so that it is made once."""
        return "corrupted" if self.kind == "eap" and self.direction == "noise" else "clean"

    def _passes(self, n_prompts: int, computed: float, graph: Graph) -> dict[str, float]:
        """Passes: of one run whole, of the others the positions that differ."""
        steps = self.along()
        if self._by_writer:
            both = len(steps) * later_passes(graph) * computed
            return {"forward_passes": n_prompts + computed + both, "backward_passes": both}
        inner = sum(at not in (0.0, 1.0) for at, _ in steps)
        return {"forward_passes": n_prompts + (1 + inner) * computed, "backward_passes": len(steps) * computed}

    def along(self) -> list[tuple[float, float]]:
        """Where gradients are taken, as shares of the way from corrupted to clean, with their weights."""
        if self.kind == "eap":
            return [(1.0 if self.direction == "noise" else 0.0, 1.0)]
        if self.kind == "clean_corrupted":
            return [(0.0, 0.5), (1.0, 0.5)]
        if self.rule == "gauss":
            at, weights = np.polynomial.legendre.leggauss(self.steps)
            return [(float(one + 1) / 2, float(weight) / 2) for one, weight in zip(at, weights, strict=True)]
        shift = {"left": 0.0, "midpoint": 0.5, "right": 1.0}[self.rule]
        return [((step + shift) / self.steps, 1 / self.steps) for step in range(self.steps)]


def _prompts_at_once(model: HookedModel, batch: ContrastBatch, graph: Graph, *, execution: Execution) -> int:
    """Prompts that go together, so that all writers of their runs and all readers' gradients fit."""
    size = torch.finfo(model.dtype).bits // 8
    vectors = 4 * len(graph.writers) + 2 * len(graph.readers) + _TAPE * graph.n_layers
    per_prompt = vectors * batch.n_pos * model.architecture.d_model * size
    return max(1, min(len(batch), budget_bytes(model, execution, most=_MOST_BYTES) // per_prompt))
