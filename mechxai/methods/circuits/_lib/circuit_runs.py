"""The metric of many circuits, some prompts and some circuits at a time."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.metric import Metric
from mechxai.core.shapes import Rows
from mechxai.engine.contrast import with_reference
from mechxai.engine.execution import Execution
from mechxai.engine.progress import ProgressBar
from mechxai.engine.sweep import run_tokens
from mechxai.methods.circuits._lib.references import Reference, reference
from mechxai.methods.circuits._lib.stream_scores import budget_bytes, score_of
from mechxai.model.backends.base import frozen
from mechxai.model.graph.circuit import run_circuits
from mechxai.model.graph.writes import Blocks, Streams, Written, embedded
from mechxai.model.hooked_model import HookedModel

_MOST_BYTES = 256 * 2**20


@dataclass(frozen=True)
class CircuitRuns:
    """What circuits are run on.

    Attributes:
        model: the model.
        blocks: its blocks.
        batch: the prompts; the clean ones are run.
        metric: what is measured.
        reference: what readers see of writers outside a circuit.
    """

    model: HookedModel
    blocks: Blocks
    batch: ContrastBatch
    metric: Metric
    reference: Reference

    @staticmethod
    def of(
        model: HookedModel, blocks: Blocks, batch: ContrastBatch, *, metric: Metric, kind: str, seed: int
    ) -> "CircuitRuns":
        """With what a metric and a kind of `Reference` ask for. Cost: up to a pass per prompt for each.

        Raises:
            ConfigError: a reference that the prompts do not allow.
        """
        batch = with_reference(model, batch, metric)
        return CircuitRuns(model, blocks, batch, metric, reference(model, blocks, batch, kind=kind, seed=seed))

    def scores(self, edges: Bool[Tensor, "circuit edge"], execution: Execution) -> Float[Tensor, "circuit prompt"]:
        """The metric of every prompt under every circuit, float64 on the CPU. Cost: about two passes for each."""
        graph, found = self.blocks.graph, torch.zeros(len(edges), len(self.batch), dtype=torch.float64)
        circuits = graph.chosen(edges.to(self.model.device))
        prompts, many = self._at_once(len(edges), execution)
        with ProgressBar("circuits", found.numel(), shown=execution.progress, unit="runs") as bar, torch.no_grad():
            for rows, part in self.batch.parts(prompts):
                score = score_of(self.model, self.blocks, part, metric=self.metric)
                start, away = self._streams(part, rows)
                for low in range(0, len(edges), many):
                    here = slice(low, low + many)
                    last = run_circuits(self.blocks, start, away, circuits=circuits[here])
                    found[here, rows] = torch.stack([score(one) for one in last]).double().cpu()
                    bar.advance(len(last) * len(part))
        return found

    def differentiable(
        self, circuits: Float[Tensor, "circuit reader writer"], prompts: Int[Tensor, " chosen"]
    ) -> Float[Tensor, "circuit chosen"]:
        """The metric of some prompts under shares of edges, with a gradient. Cost: about two passes for each."""
        part = self.batch.rows(prompts)
        score = score_of(self.model, self.blocks, part, metric=self.metric)
        with torch.no_grad():
            start, away = self._streams(part, prompts)
        with frozen(self.model.backend):
            last = run_circuits(self.blocks, start, away, circuits=circuits)
            return torch.stack([score(one) for one in last])

    def _streams(self, part: ContrastBatch, rows: Rows) -> tuple[Streams, Written]:
        """What ``embed`` writes for some prompts, and what stands in for every writer."""
        start = embedded(self.model, run_tokens(part, "clean", self.metric)[0])
        like = start.new_empty(len(self.blocks.graph.writers), *start.shape)
        return start, self.reference.written(self.model, self.blocks, self.batch, rows=rows, like=like)

    def _at_once(self, n_circuits: int, execution: Execution) -> tuple[int, int]:
        """Prompts and circuits that go together."""
        a = self.model.architecture
        readers = len(self.blocks.graph.attention_readers(0))
        one = 4 * (len(self.blocks.graph.writers) + 4 * readers) * self.batch.n_pos * a.d_model
        rows = max(1, budget_bytes(self.model, execution, most=_MOST_BYTES) // one)
        prompts = max(1, min(len(self.batch), rows, 16))
        return prompts, max(1, min(n_circuits, rows // prompts))
