"""The metric of many circuits, a few prompts and a few circuits at a time."""

from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.cached import cached_property
from mechxai.core.shapes import Rows
from mechxai.engine.execution import Execution
from mechxai.engine.finished import FinishedPieces
from mechxai.engine.progress import ProgressBar
from mechxai.engine.sweep import run_tokens
from mechxai.methods.circuits._lib.prepared_graph import PreparedGraph
from mechxai.methods.circuits._lib.references import Reference, ReferenceKind, reference
from mechxai.methods.circuits._lib.stream_scores import budget_bytes, stream_scorer
from mechxai.model.backends.base import frozen
from mechxai.model.graph.circuit import run_circuits
from mechxai.model.graph.writes import Streams, Written, embedded

_MOST_BYTES = 256 * 2**20
_MOST_PROMPTS = 16


@dataclass(frozen=True)
class _SubBatchRuns:
    """Runs of a few prompts, which share embeddings and references."""

    runs: "CircuitRuns"
    sub_batch: ContrastBatch
    rows: Rows

    @cached_property
    def _streams(self) -> tuple[Streams, Written]:
        return self.runs.streams(self.sub_batch, self.rows)

    def scores(self, circuits: Bool[Tensor, "circuit reader writer"]) -> Float[Tensor, "circuit prompt"]:
        """The metric of every prompt under every circuit."""
        prepared = self.runs.prepared.on(self.sub_batch)
        score = stream_scorer(prepared)
        last = run_circuits(prepared.blocks, *self._streams, circuits=circuits)
        return torch.stack([score(stream) for stream in last]).double().cpu()


@dataclass(frozen=True)
class CircuitRuns:
    """Runs of the clean prompts in which each reader sees only its circuit's writers.

    Attributes:
        prepared: the graph, prompts and metric.
        reference: the output that readers see of writers outside a circuit.
        finished: the scores that are already computed, also by an interrupted run.
    """

    prepared: PreparedGraph
    reference: Reference
    finished: FinishedPieces[Tensor] = field(default_factory=lambda: FinishedPieces[Tensor](None))

    @staticmethod
    def of(prepared: PreparedGraph, reference_kind: ReferenceKind, *, seed: int, execution: Execution) -> "CircuitRuns":
        """The runs under a kind of reference. Cost: up to a pass per prompt for the metric and for the reference.

        Args:
            prepared: the graph, prompts and metric.
            reference_kind: the kind of reference.
            seed: of its draw.
            execution: names the folder of finished scores.

        Raises:
            ConfigError: a reference that the prompts do not allow.
        """
        prepared = prepared.with_clean_logprobs()
        replaced = reference(prepared, reference_kind, seed=seed)
        question = ("circuits", prepared.model, prepared.batch, prepared.metric, replaced)
        return CircuitRuns(prepared, replaced, FinishedPieces(execution.cells, *question))

    def scores(self, edges: Bool[Tensor, "circuit edge"], execution: Execution) -> Float[Tensor, "circuit prompt"]:
        """The metric of every prompt under every circuit, float64 on the CPU. Cost: about two passes for each."""
        prepared = self.prepared
        scores = torch.zeros(len(edges), len(prepared.batch), dtype=torch.float64)
        circuits = prepared.graph.chosen(edges.to(prepared.model.device))
        prompts_at_once, circuits_at_once = self._at_once(len(edges), execution)
        with ProgressBar("circuits", scores.numel(), shown=execution.progress, unit="runs") as bar, torch.no_grad():
            for rows, sub_batch in prepared.batch.parts(prompts_at_once):
                runs = _SubBatchRuns(self, sub_batch, rows)
                for low in range(0, len(edges), circuits_at_once):
                    chunk = slice(low, low + circuits_at_once)
                    name = (rows.start, len(sub_batch), edges[chunk])
                    scores[chunk, rows] = self.finished.take(name, partial(runs.scores, circuits[chunk]))
                    bar.advance(len(edges[chunk]) * len(sub_batch))
        return scores

    def differentiable(
        self, circuits: Float[Tensor, "circuit reader writer"], prompts: Int[Tensor, " chosen"]
    ) -> Float[Tensor, "circuit chosen"]:
        """The metric of some prompts under shares of edges, with a gradient. Cost: about two passes for each."""
        prepared = self.prepared.on(self.prepared.batch.rows(prompts))
        score = stream_scorer(prepared)
        with torch.no_grad():
            embeds, replacements = self.streams(prepared.batch, prompts)
        with frozen(prepared.model.backend):
            last = run_circuits(prepared.blocks, embeds, replacements, circuits=circuits)
            return torch.stack([score(stream) for stream in last])

    def streams(self, sub_batch: ContrastBatch, rows: Rows) -> tuple[Streams, Written]:
        """The output of ``embed`` for some prompts, and the reference output of every writer."""
        embeds = embedded(self.prepared.model, run_tokens(sub_batch, "clean", self.prepared.metric)[0])
        like = embeds.new_empty(len(self.prepared.graph.writers), *embeds.shape)
        return embeds, self.reference.written(self.prepared, rows=rows, like=like)

    def _at_once(self, n_circuits: int, execution: Execution) -> tuple[int, int]:
        """How many prompts, and how many circuits, run together."""
        model, graph, batch = self.prepared.model, self.prepared.graph, self.prepared.batch
        n_readers = len(graph.attention_readers(0))
        row_bytes = 4 * (len(graph.writers) + 4 * n_readers) * batch.n_pos * model.architecture.d_model
        rows = max(1, budget_bytes(model, execution, most=_MOST_BYTES) // row_bytes)
        prompts = max(1, min(len(batch), rows, _MOST_PROMPTS))
        return prompts, max(1, min(n_circuits, rows // prompts))
