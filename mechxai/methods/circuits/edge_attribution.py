"""Edge attribution: to first order, what every edge of the model carries of a behaviour, from a few gradients."""

import time
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, check_choice
from mechxai.core.graph import Graph
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, Metric, as_metric
from mechxai.core.result import Result
from mechxai.engine.contrast import DIRECTIONS, with_reference
from mechxai.engine.execution import Execution
from mechxai.engine.progress import Bar
from mechxai.engine.sweep import run_tokens
from mechxai.methods.circuits.edge_result import EdgeScores, edge_result
from mechxai.methods.circuits.measuring import budget_bytes, score_of
from mechxai.methods.circuits.references import REFERENCES, Reference, reference
from mechxai.model.backends import frozen
from mechxai.model.graph_gradients import Gradients, reader_gradients
from mechxai.model.graph_writes import Blocks, Streams, Written, embedded, graph_blocks, writes
from mechxai.model.hooked_model import HookedModel

KINDS = ("eap", "clean_corrupted", "eap_ig_inputs")
RULES = ("midpoint", "left", "right", "gauss")
_MOST_BYTES = 512 * 2**20


@final
@register(
    MethodCard(
        name="edge_attribution",
        family="circuits",
        question="Which edges between heads and MLPs carry the behaviour, to first order?",
        cost="two forward passes and one backward per prompt (eap_ig_inputs: two, and one of each per step)",
        source="Syed et al. 2023 (arXiv 2310.10348); Hanna et al. 2024 (arXiv 2403.17806)",
        pros="every edge at once, at the price of a few passes",
        cons="first order: saturated edges (a sharp softmax) are missed, which EdgePatching shows",
    )
)
@dataclass(frozen=True)
class EdgeAttribution(Method):
    """``(written - reference) . d metric / d read`` for every edge: positive where it supports the behaviour.

    Heads' queries, keys and values are inputs of their own. The gradient at an input is that of all that comes of it.

    Attributes:
        kind: ``eap``, one gradient (of the clean run, or, denoising, of the corrupted); ``clean_corrupted``, the mean
            of both; ``eap_ig_inputs``, the mean along the way from the corrupted embeddings to the clean.
        direction: of ``eap``: ``noise`` takes the gradient at the clean run, ``denoise`` at the corrupted.
        steps: of ``eap_ig_inputs``.
        rule: where the steps lie: ``midpoint``, ``left`` (from the corrupted run on, as the authors' code has it),
            ``right`` (up to the clean run, as their paper has it) or ``gauss`` (Gauss-Legendre).
        reference: what stands in for a writer: the ``corrupted`` run, ``zero``, its ``mean`` over the corrupted
            prompts, or the corrupted run of another prompt (``resample``); others than the first for ``eap`` alone.
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

    def __post_init__(self) -> None:
        as_metric(self.metric)
        check_choice("kind", self.kind, KINDS)
        check_choice("direction", self.direction, DIRECTIONS)
        check_choice("rule", self.rule, RULES)
        check_choice("reference", self.reference, REFERENCES)
        if self.steps < 1:
            raise ConfigError(f"edge_attribution with steps={self.steps}", allowed="1 or more")
        if self.reference != "corrupted" and (self.kind != "eap" or self.direction != "noise"):
            raise ConfigError(
                f"edge_attribution with reference={self.reference}, kind={self.kind}, direction={self.direction}",
                got="a gradient on the way to a run that there is none of",
                allowed="kind=eap, direction=noise with this reference; or reference=corrupted",
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
        with Bar("edge attribution", len(batch), shown=execution.progress, unit="prompts") as bar:
            for rows, part in batch.parts(_prompts_at_once(model, batch, blocks.graph, execution=execution)):
                scores, *both = _Part(self, model, blocks, batch, metric, rows, part).scores(known)
                found.append(scores)
                ends.append((both[0], both[1]))
                bar.advance(len(scores))
        clean, corrupted = (torch.cat([one[end] for one in ends]).double().cpu().numpy() for end in (0, 1))
        whole = EdgeScores(
            blocks.graph,
            torch.cat(found).double().cpu().numpy(),
            metric.unit,
            f"first-order change of {metric.name} that the edge brings",
            clean,
            corrupted,
        )
        steps = self.along()
        inner = sum(at not in (0.0, 1.0) for at, _ in steps)
        cost = {
            "forward_passes": float((2 + inner) * len(batch)),
            "backward_passes": float(len(steps) * len(batch)),
            "seconds": time.perf_counter() - started,
        }
        return edge_result(self, model, batch, found=whole, cost=cost)

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


@dataclass
class _Part:
    """Some prompts."""

    method: EdgeAttribution
    model: HookedModel
    blocks: Blocks
    batch: ContrastBatch
    metric: Metric
    rows: slice
    part: ContrastBatch

    def __post_init__(self) -> None:
        tokens = (run_tokens(self.part, run, self.metric)[0] for run in ("clean", "corrupted"))
        self.clean, self.corrupted = (embedded(self.model, one) for one in tokens)
        self.score = score_of(self.model, self.blocks, self.part, metric=self.metric)

    def scores(self, known: Reference) -> tuple[Float[Tensor, "prompt edge"], Tensor, Tensor]:
        """What every edge brings; the metric of the clean and the corrupted run. Cost: the class's."""
        total, ends = self._gradients()
        written, clean = ends.get(1.0) or self._run(self.clean)
        away, corrupted = ends.get(0.0) or self._run(self.corrupted)
        if known.kind != "corrupted":
            away = known.written(self.model, self.blocks, self.batch, rows=self.rows, like=written)
        graph = self.blocks.graph
        return graph.of_matrix(edge_products(graph, written - away, total)), clean, corrupted

    def _gradients(self) -> tuple[Gradients, dict[float, tuple[Written, Tensor]]]:
        """The mean gradient on the way, and the runs at its ends, as far as it comes there."""
        total: Gradients | None = None
        ends: dict[float, tuple[Written, Tensor]] = {}
        for at, weight in self.method.along():
            first = self.corrupted + at * (self.clean - self.corrupted)
            with frozen(self.model.backend):
                found = reader_gradients(self.blocks, first, self.score, written=at in (0.0, 1.0))
            if at in (0.0, 1.0):
                ends[at] = found.written, found.scores
            if total is None:
                total = found
                for one in total.all:
                    one.mul_(weight)
            else:
                total.add(found, weight)
        if total is None:
            raise ConfigError("edge_attribution without steps", allowed="1 or more")
        return total, ends

    def _run(self, first: Streams) -> tuple[Written, Tensor]:
        found = writes(self.blocks, first)
        with torch.no_grad():
            return found.values, self.score(found.residuals[-1])


def edge_products(graph: Graph, written: Written, gradients: Gradients) -> Float[Tensor, "prompt reader writer"]:
    """Every writer's output times the gradient at every reader that sees it; what is no edge stays 0."""
    n_prompts = written.shape[1]
    by_prompt = written.transpose(0, 1).flatten(2)  # [prompt, writer, pos * d_model]
    total = written.new_zeros(n_prompts, *graph.reads.shape, dtype=torch.float32)
    row = 0
    for layer, attention in enumerate(gradients.attention):
        n = graph.n_before_attention(layer)
        read = attention.transpose(0, 1).flatten(2)
        total[:, row : row + read.shape[1], :n] = (read @ by_prompt[:, :n].transpose(1, 2)).float()
        row += read.shape[1]
        if graph.mlps:
            n = graph.n_before_mlp(layer)
            total[:, row, :n] = torch.einsum("bux,bx->bu", by_prompt[:, :n], gradients.mlps[layer].flatten(1)).float()
            row += 1
    total[:, row] = torch.einsum("bux,bx->bu", by_prompt, gradients.logits.flatten(1)).float()
    return total


def _prompts_at_once(model: HookedModel, batch: ContrastBatch, graph: Graph, *, execution: Execution) -> int:
    """Prompts that go together, so that all writers of their runs and all readers' gradients fit."""
    size = torch.finfo(model.dtype).bits // 8
    per_prompt = (3 * len(graph.writers) + 2 * len(graph.readers)) * batch.n_pos * model.architecture.d_model * size
    return max(1, min(len(batch), budget_bytes(model, execution, most=_MOST_BYTES) // per_prompt))
