"""Edge pruning: find a circuit by gradient descent on a gate for every edge."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError
from mechxai.core.fingerprint import Fingerprints
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import Result, variable
from mechxai.core.work_clock import add_earlier_work, work_seconds
from mechxai.engine.checkpoint import TENSORS, CheckpointStore
from mechxai.engine.execution import Execution
from mechxai.engine.progress import ProgressBar
from mechxai.methods.circuits._lib.circuit_runs import CircuitRuns
from mechxai.methods.circuits._lib.edge_result import edge_coords
from mechxai.methods.circuits._lib.edge_selection import edge_count, pruned
from mechxai.methods.circuits._lib.field_checks import check_at_least
from mechxai.methods.circuits._lib.hard_concrete import deterministic_gates, open_probability, sampled_gates
from mechxai.methods.circuits._lib.prepared_graph import prepare_graph
from mechxai.methods.circuits._lib.references import ReferenceKind
from mechxai.methods.circuits._lib.stream_scores import loss_sign
from mechxai.methods.result_parts import run_info
from mechxai.model.hooked_model import HookedModel

_WARM_UP = 0.6  # share of the steps over which the target falls to its final value
_START_LOG_ODDS = 2.0  # nearly open
_SAVE_EVERY = 5.0  # seconds
_MULTIPLIER_LR = 0.1  # the multipliers' learning rate, as a share of the gates'


@final
@register(
    MethodCard(
        name="edge_pruning",
        family="circuits",
        kind="edges",
        question="Which circuit of a given size is most like the model, all edges chosen together?",
        cost="about four passes per prompt and step",
        source="Bhaskar et al. 2024 (arXiv 2406.16778); Louizos et al. 2018 (arXiv 1712.01312)",
        pros="chooses edges together, not one by one, and for a given size",
        cons="depends on training: seed and learning rate; the optimum is not guaranteed",
    )
)
@dataclass(frozen=True)
class EdgePruning(Method):
    """Hard concrete gates on all edges, trained so that a circuit of a given size is like the model.

    The loss is the metric plus a Lagrangian that holds the expected share of open gates at a target, which falls from
    all edges to ``keep``. Behind a closed gate the reader sees the reference.

    Attributes:
        keep: share of the edges to keep.
        steps: of training.
        lr: learning rate of the gates' log-odds (Adam); the Lagrangian's multipliers have a tenth of it.
        batch_size: prompts in a step, taken in turn.
        metric: ``kl_divergence`` to the whole model (the authors' choice), or any that should be high.
        reference: what readers see of a writer behind a closed gate: ``corrupted``, ``zero``, ``mean`` or
            ``resample``.
        seed: of the gates' noise and of ``resample``.

    Source: as in the card, with gates on edges but not on nodes.
    """

    keep: float = 0.05
    steps: int = 300
    lr: float = 0.3
    batch_size: int = 16
    metric: AnyMetric = "kl_divergence"
    reference: ReferenceKind = "corrupted"
    seed: int = 0

    def _check_fields(self) -> None:
        as_metric(self.metric)
        check_at_least(1, steps=self.steps, batch_size=self.batch_size)
        if not 0 < self.keep < 1:
            raise ConfigError(f"keep is {self.keep}: it must be above 0 and below 1")
        if self.lr <= 0:
            raise ConfigError(f"lr is {self.lr}: it must be above 0")

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
        prepared = prepare_graph(model, batch, self.metric)
        graph, metric = prepared.graph, prepared.metric
        runs = CircuitRuns.of(prepared, self.reference, seed=self.seed, execution=execution)
        training = _Training(self, runs, execution.cells)
        with training, ProgressBar("edge pruning", self.steps, shown=execution.progress, unit="steps") as bar:
            bar.advance(training.n_steps, computed=False)
            for step in range(training.n_steps, self.steps):
                training.take_step(step)
                bar.advance(1)
        log_odds = training.log_odds.detach()
        order = log_odds.argsort(descending=True, stable=True).cpu()
        kept = torch.zeros(len(log_odds), dtype=torch.bool)
        kept[order[: max(1, edge_count(self.keep, len(log_odds)))]] = True
        opening, gates = open_probability(log_odds).cpu().numpy(), deterministic_gates(log_odds).cpu().numpy()
        data = {
            "value": variable(("edge",), opening, "probability", "that the edge's gate is open"),
            "gate": variable(("edge",), gates, "fraction", "of the edge that passes the gate"),
            "kept": variable(("edge",), pruned(graph, kept[None])[0].numpy(), "truth", "whether the edge remains"),
            "loss": variable(("step",), np.array(training.losses), metric.unit, f"{metric.name} as a loss"),
            "open": variable(("step",), np.array(training.open_shares), "fraction", "expected share of open gates"),
        }
        coords = {"step": list(range(self.steps)), **edge_coords(graph.edges)}
        passes = 2.0 * self.steps * training.n_rows
        cost = prepared.cost({"forward_passes": passes, "backward_passes": passes})
        notes = (*training.notes(), f"cut edges bring their writers' output under reference={self.reference}")
        return Result(xr.Dataset(data, coords=coords), run_info(self, model, prepared.batch, cost=cost, notes=notes))


class _Training:
    """The gates' log-odds and the Lagrangian's multipliers in training, with the loss and open share of every step.

    Its state is saved every few seconds, and at the end of a ``with`` block; a training of the same question resumes.
    """

    def __init__(self, method: EdgePruning, runs: CircuitRuns, folder: Path | None = None) -> None:
        self._method, self._runs, self._graph = method, runs, runs.prepared.graph
        self._sign = loss_sign(runs.prepared.metric)
        self._generator = torch.Generator().manual_seed(method.seed)
        device = runs.prepared.model.device
        self.log_odds = torch.full((len(self._graph.edges),), _START_LOG_ODDS, device=device, requires_grad=True)
        self._multipliers = torch.zeros(2, device=device, requires_grad=True)
        self._descent = torch.optim.Adam([self.log_odds], lr=method.lr)
        self._ascent = torch.optim.Adam([self._multipliers], lr=_MULTIPLIER_LR * method.lr, maximize=True)
        self._n_prompts = len(runs.prepared.batch)
        self.n_rows = min(method.batch_size, self._n_prompts)
        self.losses: list[float] = []
        self.open_shares: list[float] = []
        question = (method, runs.prepared.model, runs.prepared.batch, runs.reference)
        key = "" if folder is None else Fingerprints()(question)
        self._states, self._name = CheckpointStore(folder, key, TENSORS), f"edge-pruning-{key[:12]}"
        self._started = self._saved_at = work_seconds()
        self._restore()

    @property
    def n_steps(self) -> int:
        """The steps taken so far."""
        return len(self.losses)

    def notes(self) -> tuple[str, ...]:
        """A remark where the state could not be saved."""
        failed = self._states.failed
        return () if failed is None else (f"the training's state could not be kept on disk: {failed}",)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._save()

    def take_step(self, step: int) -> None:
        """One step, down for the gates and up for the multipliers. Cost: about four passes per prompt of the step."""
        method = self._method
        rows = (torch.arange(self.n_rows) + step * self.n_rows) % self._n_prompts
        with torch.enable_grad():
            gates = sampled_gates(self.log_odds, self._generator)
            loss = self._sign * self._runs.differentiable(self._table(gates), rows.sort().values).mean()
            open_share = open_probability(self.log_odds).mean()
            target = 1 - (1 - method.keep) * min(1.0, (step + 1) / (_WARM_UP * method.steps))
            excess = open_share - target
            self._descent.zero_grad()
            self._ascent.zero_grad()
            (loss + self._multipliers[0] * excess + self._multipliers[1] * excess.square()).backward()
        self._descent.step()
        self._ascent.step()
        self.losses.append(float(loss.detach()))
        self.open_shares.append(float(open_share.detach()))
        if work_seconds() - self._saved_at > _SAVE_EVERY:
            self._save()

    def _save(self) -> None:
        optimizers = {"descent": self._descent, "ascent": self._ascent}
        moments = {
            f"{which}.{name}": value
            for which, optimizer in optimizers.items()
            for name, value in optimizer.state_dict()["state"].get(0, {}).items()
        }
        values = {"losses": self.losses, "open_shares": self.open_shares, "seconds": work_seconds() - self._started}
        self._states.save(
            self._name,
            {"log_odds": self.log_odds, "multipliers": self._multipliers, "noise": self._generator.get_state()}
            | {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}
            | moments,
        )
        self._saved_at = work_seconds()

    def _restore(self) -> None:
        state = self._states.load(self._name)
        if state is None:
            return
        with torch.no_grad():
            self.log_odds.copy_(state["log_odds"])
            self._multipliers.copy_(state["multipliers"])
        for which, optimizer in (("descent", self._descent), ("ascent", self._ascent)):
            moments = {name.partition(".")[2]: value for name, value in state.items() if name.startswith(f"{which}.")}
            optimizer.load_state_dict({**optimizer.state_dict(), "state": {0: moments} if moments else {}})
        self._generator.set_state(state["noise"])
        self.losses, self.open_shares = state["losses"].tolist(), state["open_shares"].tolist()
        add_earlier_work(float(state["seconds"]))

    def _table(self, gates: Float[Tensor, " edge"]) -> Float[Tensor, "circuit reader writer"]:
        reads = self._graph.reads.to(gates.device)
        return torch.zeros(reads.shape, device=gates.device).masked_scatter(reads, gates)[None]
