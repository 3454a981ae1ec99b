"""The shared part of methods that validate a circuit: fields, discovery, runs on the test prompts, and the result."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError
from mechxai.core.method import Method
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import Result
from mechxai.engine.execution import Execution
from mechxai.methods.circuits._lib.circuit_runs import CircuitRuns
from mechxai.methods.circuits._lib.discovery import Split, edge_method, split_prompts
from mechxai.methods.circuits._lib.edge_selection import Rank, pruned, top_edges
from mechxai.methods.circuits._lib.field_checks import check_share
from mechxai.methods.circuits._lib.prepared_graph import PreparedGraph
from mechxai.methods.circuits._lib.references import ReferenceKind
from mechxai.methods.result_parts import run_info


@dataclass(frozen=True)
class SplitRuns:
    """The prompts that find a circuit, and the runs on the prompts that test it.

    Attributes:
        prepared: the graph, all prompts and the metric.
        discovery: the prompts that find the circuit.
        tests: circuits run on the prompts that test it.
    """

    prepared: PreparedGraph
    discovery: ContrastBatch
    tests: CircuitRuns

    @property
    def n_test_prompts(self) -> int:
        """How many prompts test the circuit."""
        return len(self.tests.prepared.batch)


@dataclass(frozen=True)
class CircuitValidation(Method):
    """Base of methods that find edges on some prompts and test the circuit of the highest edges on the others.

    Attributes:
        of: the method that scores edges, its name (with its defaults), or a circuit file (``.nc``, ``.json``).
        rank: edges by ``absolute`` score, or ``signed``.
        reference: what readers see of writers outside the circuit.
        discover: share of the prompts that find the edges; 1 takes all to find and to test.
        split: of the prompts, by ``prompts`` or by ``templates``.
        metric: the metric of the runs.
        seed: of all random draws.
    """

    of: Any = "edge_attribution"
    _: KW_ONLY
    rank: Rank = "absolute"
    reference: ReferenceKind = "corrupted"
    discover: float = 0.5
    split: Split = "prompts"
    metric: AnyMetric = "logit_diff"
    seed: int = 0

    def _check_fields(self) -> None:
        as_metric(self.metric)
        edge_method(self.of, self.metric)
        check_share("discover", self.discover)

    @contextmanager
    def _split_runs(self, prepared: PreparedGraph, execution: Execution) -> Iterator[SplitRuns]:
        """The prompts split in two, in a ``with`` block at whose end finished scores are saved.

        Yields:
            The prompts and runs. Cost: up to two passes per test prompt for the metric and the reference.

        Raises:
            ConfigError: too few prompts or templates; a reference that the prompts do not allow.
        """
        discovery, tests = split_prompts(prepared.batch, self.discover, self.split)
        runs = CircuitRuns.of(prepared.on(tests), self.reference, seed=self.seed, execution=execution)
        with runs.finished:
            yield SplitRuns(prepared, discovery, runs)

    def _discovery(self, runs: SplitRuns, execution: Execution) -> Result:
        """The edge scores on the discovery prompts."""
        return edge_method(self.of, self.metric)(runs.prepared.model, runs.discovery, execution=execution)

    def _circuit(
        self, prepared: PreparedGraph, scores: Float[np.ndarray, " edge"], fraction: float
    ) -> Bool[Tensor, " edge"]:
        """The highest edges, pruned to paths from the embedding to the logits.

        Raises:
            ConfigError: no path among them.
        """
        circuit = pruned(prepared.graph, top_edges(scores, [fraction], rank=self.rank))[0]
        if not bool(circuit.any()):
            raise ConfigError(
                f"The circuit of fraction={fraction} has no path from the embedding to the logits",
                fix="Use a larger fraction",
            )
        return circuit

    def _result(
        self,
        runs: SplitRuns,
        data: Mapping[str, xr.DataArray],
        coords: Mapping[str, object],
        *,
        discovery: Result,
        n_runs: int,
        notes: Sequence[str] = (),
    ) -> Result:
        """The result with its cost and notes.

        Args:
            runs: the split prompts.
            data: the variables.
            coords: their coordinates.
            discovery: the edge scores.
            n_runs: runs of one circuit on one prompt, of two passes each.
            notes: on the variables.
        """
        prepared = runs.prepared
        passes = discovery.info.cost.get("forward_passes", 0.0) + 2.0 * n_runs
        shared = [f"edges outside a circuit bring their writers' output under reference={self.reference}"]
        if self.discover == 1:
            shared.append("the circuit was tested on the prompts it was found on")
        cost = prepared.cost({"forward_passes": passes})
        all_notes = (*shared, *notes, *runs.tests.finished.notes())
        info = run_info(self, prepared.model, prepared.batch, cost=cost, notes=all_notes)
        return Result(xr.Dataset(data, coords=coords), info)
