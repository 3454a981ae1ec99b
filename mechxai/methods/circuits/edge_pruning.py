"""Edge pruning: a circuit found by gradient descent on gates, one for every edge."""

import time
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
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
from mechxai.methods.circuits._lib.hard_concrete import drawn, open_share, settled
from mechxai.methods.circuits._lib.references import REFERENCES
from mechxai.methods.circuits._lib.stream_scores import as_loss
from mechxai.methods.result_parts import run_info
from mechxai.model.graph.writes import graph_blocks
from mechxai.model.hooked_model import HookedModel

_WARM = 0.6  # share of the steps over which the target comes down
_START = 2.0  # log-odds: nearly open
_SLOWER = 0.1  # the multipliers' learning rate, as a share of the gates'


@final
@register(
    MethodCard(
        name="edge_pruning",
        family="circuits",
        kind="edges",
        question="Which so many edges together do best what the model does?",
        cost="about four passes per prompt and step",
        source="Bhaskar et al. 2024 (arXiv 2406.16778); Louizos et al. 2018 (arXiv 1712.01312)",
        pros="edges are chosen together, not one by one, and for a size that is asked for",
        cons="training: a seed, a learning rate, and no promise of the best",
    )
)
@dataclass(frozen=True)
class EdgePruning(Method):
    """Hard concrete gates on all edges, trained so that the circuit does what the model does with so many edges.

    The loss is the metric's plus a Lagrangian that holds the expected share of open gates at a target, which comes down
    from all edges to ``keep``. Edges whose gates are cut bring their reference.

    Attributes:
        keep: share of the edges to keep.
        steps: of training.
        lr: learning rate of the gates' log-odds (Adam); the Lagrangian's multipliers have a tenth of it.
        batch_size: prompts in a step, drawn in turn.
        metric: ``kl_divergence`` to the whole model (the authors' choice), or any that should be high.
        reference: ``corrupted``, ``zero``, ``mean`` or ``resample``.
        seed: of the draws.

    Source: as in the card, with gates for edges and none for nodes.
    """

    keep: float = 0.05
    steps: int = 300
    lr: float = 0.3
    batch_size: int = 16
    metric: AnyMetric = "kl_divergence"
    reference: str = "corrupted"
    seed: int = 0

    def _check_fields(self) -> None:
        as_metric(self.metric)
        check_choice("reference", self.reference, REFERENCES)
        if not 0 < self.keep < 1 or min(self.steps, self.batch_size) < 1 or self.lr <= 0:
            raise ConfigError(
                "edge_pruning",
                got=f"keep={self.keep}, steps={self.steps}, batch_size={self.batch_size}, lr={self.lr}",
                allowed="keep between 0 and 1, 1 or more steps and prompts, a learning rate above 0",
            )

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """The gates after training.

        Returns:
            ``value`` [edge], the probability that the gate is open, by which edges can be ranked; ``kept`` [edge], the
            ``keep`` highest after pruning; ``loss``, ``open`` [step], the metric as a loss and the expected share of
            open gates.

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
        training = _Training(self, runs)
        with ProgressBar("edge pruning", self.steps, shown=execution.progress, unit="steps") as bar:
            for step in range(self.steps):
                training.step(step)
                bar.advance(1)
        odds = training.log_odds.detach()
        order = odds.argsort(descending=True, stable=True).cpu()
        kept = torch.zeros(len(odds), dtype=torch.bool)
        kept[order[: max(1, int(self.keep * len(odds) + 1e-9))]] = True
        data = {
            "value": variable(("edge",), open_share(odds).cpu().numpy(), "probability", "that the edge's gate is open"),
            "gate": variable(("edge",), settled(odds).cpu().numpy(), "fraction", "of the edge that passes the gate"),
            "kept": variable(("edge",), pruned(graph, kept[None])[0].numpy(), "truth", "whether the edge remains"),
            "loss": variable(("step",), np.array(training.losses), metric.unit, f"{metric.name} as a loss"),
            "open": variable(("step",), np.array(training.shares), "fraction", "expected share of open gates"),
        }
        coords = {"step": list(range(self.steps)), **edge_coords(graph.edges)}
        cost = {
            "forward_passes": 2.0 * self.steps * training.n_rows,
            "backward_passes": 2.0 * self.steps * training.n_rows,
            "seconds": time.perf_counter() - started,
        }
        notes = (f"edges that are cut bring what they bring under reference={self.reference}",)
        return Result(xr.Dataset(data, coords=coords), run_info(self, model, batch, cost=cost, notes=notes))


class _Training:
    """The gates' log-odds, the multipliers, and what became of them."""

    def __init__(self, method: EdgePruning, runs: CircuitRuns) -> None:
        self._method, self._runs, self._graph = method, runs, runs.blocks.graph
        self._sign = as_loss(runs.metric)
        self._generator = torch.Generator().manual_seed(method.seed)
        device = runs.model.device
        self.log_odds = torch.full((len(self._graph.edges),), _START, device=device, requires_grad=True)
        self._multipliers = torch.zeros(2, device=device, requires_grad=True)
        self._descent = torch.optim.Adam([self.log_odds], lr=method.lr)
        self._ascent = torch.optim.Adam([self._multipliers], lr=_SLOWER * method.lr, maximize=True)
        self.n_rows = min(method.batch_size, len(runs.batch))
        self.losses: list[float] = []
        self.shares: list[float] = []

    def step(self, step: int) -> None:
        """One step, down for the gates and up for the multipliers. Cost: about four passes per prompt of the step."""
        method = self._method
        rows = (torch.arange(self.n_rows) + step * self.n_rows) % len(self._runs.batch)
        with torch.enable_grad():
            gates = drawn(self.log_odds, self._generator)
            loss = self._sign * self._runs.differentiable(self._table(gates), rows.sort().values).mean()
            share = open_share(self.log_odds).mean()
            target = 1 - (1 - method.keep) * min(1.0, (step + 1) / (_WARM * method.steps))
            apart = share - target
            self._descent.zero_grad()
            self._ascent.zero_grad()
            (loss + self._multipliers[0] * apart + self._multipliers[1] * apart.square()).backward()
        self._descent.step()
        self._ascent.step()
        self.losses.append(float(loss.detach()))
        self.shares.append(float(share.detach()))

    def _table(self, gates: Float[Tensor, " edge"]) -> Float[Tensor, "circuit reader writer"]:
        reads = self._graph.reads.to(gates.device)
        return torch.zeros(reads.shape, device=gates.device).masked_scatter(reads, gates)[None]
