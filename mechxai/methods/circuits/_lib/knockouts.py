"""Circuits without some of their nodes, and what is left of the metric."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.core.graph import EMBED, Graph
from mechxai.engine.execution import Execution
from mechxai.methods.circuits._lib.circuit_runs import CircuitRuns
from mechxai.methods.circuits._lib.edge_selection import nodes_read

Edges = Bool[Tensor, " edge"]
Set = Bool[np.ndarray, " node"]
NOTHING = "none"


class Knockouts:
    """A circuit's heads and MLPs, and circuits without some of them.

    Args:
        graph: the model's.
        circuit: the edges.
        runs: what circuits are run on.
        execution: how.
    """

    def __init__(self, graph: Graph, circuit: Edges, runs: CircuitRuns, *, execution: Execution) -> None:
        self.graph, self.circuit, self._runs, self._execution = graph, circuit, runs, execution
        self.n_runs = 0
        table, into = graph.chosen(circuit), nodes_read(graph)[:, :-1]  # [reader, writer]; [reader, node]
        used = table.any(0) | (table.any(1)[:, None] & into).any(0)
        self.nodes = [name for name, kept in zip(graph.writers, used.tolist(), strict=True) if kept and name != EMBED]
        rows = torch.tensor([graph.writers.index(name) for name in self.nodes], dtype=torch.long)
        writes = torch.arange(len(graph.writers)) == rows[:, None]  # [node, writer]
        alone = into & (into.sum(1, keepdim=True) == 1)  # keys and values of a group outlast one of its heads
        touching = graph.reads & (writes[:, None] | alone.T[rows][:, :, None])  # [node, reader, writer]
        self._touching = graph.of_matrix(touching.float()).bool()

    @property
    def everything(self) -> Edges:
        """All edges of the model."""
        return torch.ones_like(self.circuit)

    def out_of(self, circuit: Edges, chosen: Set) -> Edges:
        """A circuit without the edges that touch some nodes."""
        return circuit & ~self._touching[torch.from_numpy(chosen)].any(0)

    def drawn(self, n: int, generator: np.random.Generator) -> list[Set]:
        """Random sets, each node in half of them."""
        return [generator.random(len(self.nodes)) < 0.5 for _ in range(n)]

    def measured(self, circuits: Sequence[Edges]) -> Float[np.ndarray, " circuit"]:
        """The mean metric of circuits. Cost: two passes per circuit and prompt."""
        self.n_runs += len(circuits)
        return self._runs.scores(torch.stack(list(circuits)), self._execution).numpy().mean(1)

    def apart(self, sets: Sequence[Set]) -> tuple[Float[np.ndarray, " set"], Float[np.ndarray, " set"]]:
        """The metric of the circuit and of the model, without each set."""
        found = self.measured([self.out_of(one, chosen) for one in (self.circuit, self.everything) for chosen in sets])
        own, whole = np.split(found, 2)
        return own, whole

    def worst(self, most: int) -> Set:
        """The set of so many nodes for which circuit and model differ most, built one node after the other."""
        chosen = np.zeros(len(self.nodes), bool)
        for _ in range(min(most, len(chosen))):
            tried = [chosen | (np.arange(len(chosen)) == node) for node in np.nonzero(~chosen)[0]]
            own, whole = self.apart(tried)
            chosen = tried[int(np.abs(own - whole).argmax())]
        return chosen

    def missed(self, sets: Sequence[Set]) -> tuple[Float[np.ndarray, " node"], list[str]]:
        """By how much the circuit changes without each node, beside the set (or none) for which it does most."""
        n = len(self.nodes)
        sets = [np.zeros(n, bool), *sets]
        before = self.measured([self.out_of(self.circuit, one) for one in sets])
        missed, given = np.zeros(n), [NOTHING] * n
        for node in range(n):
            own = np.arange(n) == node
            apart = np.abs(self.measured([self.out_of(self.circuit, one | own) for one in sets]) - before)
            missed[node], given[node] = apart.max(), self.name(sets[int(apart.argmax())])
        return missed, given

    def name(self, chosen: Set) -> str:
        """A set's nodes, with commas between."""
        return ", ".join(name for name, kept in zip(self.nodes, chosen.tolist(), strict=True) if kept) or NOTHING
