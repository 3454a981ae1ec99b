"""Knockouts: the metric of a circuit and of the whole model without sets of their nodes."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.core.graph import EMBED, Graph
from mechxai.engine.execution import Execution
from mechxai.methods.circuits._lib.circuit_runs import CircuitRuns
from mechxai.methods.circuits._lib.edge_selection import reader_nodes

Edges = Bool[Tensor, " edge"]
NodeSet = Bool[np.ndarray, " node"]
_EMPTY = "none"


class Knockouts:
    """A circuit's heads and MLPs, and runs without some of them.

    Args:
        graph: the model's.
        circuit: the edges.
        runs: the runs that score circuits.
        execution: how to run.

    Attributes:
        nodes: the circuit's heads and MLPs.
        n_runs: circuits that were run so far.
    """

    def __init__(self, graph: Graph, circuit: Edges, runs: CircuitRuns, *, execution: Execution) -> None:
        self.graph, self.circuit, self._runs, self._execution = graph, circuit, runs, execution
        self.n_runs = 0
        table, node_table = graph.chosen(circuit), reader_nodes(graph)[:, :-1]  # [reader, writer]; [reader, node]
        used = table.any(0) | (table.any(1)[:, None] & node_table).any(0)
        used[graph.writers.index(EMBED)] = False
        self.nodes = [name for name, is_used in zip(graph.writers, used.tolist(), strict=True) if is_used]
        rows = torch.tensor([graph.writers.index(name) for name in self.nodes], dtype=torch.long)
        writes = torch.arange(len(graph.writers)) == rows[:, None]  # [node, writer]
        # keys and values of a group stay when one of its heads is knocked out
        sole = node_table & (node_table.sum(1, keepdim=True) == 1)
        touching = graph.reads & (writes[:, None] | sole.T[rows][:, :, None])  # [node, reader, writer]
        self._touching = graph.of_matrix(touching.float()).bool()

    @property
    def all_edges(self) -> Edges:
        """All edges of the model."""
        return torch.ones_like(self.circuit)

    def without(self, circuit: Edges, nodes: NodeSet) -> Edges:
        """A circuit without the edges that touch some nodes."""
        return circuit & ~self._touching[torch.from_numpy(nodes)].any(0)

    def random_sets(self, n: int, generator: np.random.Generator) -> list[NodeSet]:
        """Random sets, each node in half of them."""
        return [generator.random(len(self.nodes)) < 0.5 for _ in range(n)]

    def mean_scores(self, circuits: Sequence[Edges]) -> Float[np.ndarray, " circuit"]:
        """The metric of circuits, mean over prompts. Cost: two passes per circuit and prompt."""
        self.n_runs += len(circuits)
        return self._runs.scores(torch.stack(list(circuits)), self._execution).numpy().mean(1)

    def scores_without(self, sets: Sequence[NodeSet]) -> tuple[Float[np.ndarray, " set"], Float[np.ndarray, " set"]]:
        """The metric of the circuit and of the model, without each set."""
        edges = [self.without(circuit, nodes) for circuit in (self.circuit, self.all_edges) for nodes in sets]
        of_circuit, of_model = np.split(self.mean_scores(edges), 2)
        return of_circuit, of_model

    def greedy_set(self, most: int) -> NodeSet:
        """The set of up to ``most`` nodes without which circuit and model differ most, built one node at a time."""
        nodes = np.zeros(len(self.nodes), bool)
        for _ in range(min(most, len(nodes))):
            candidates = [nodes | (np.arange(len(nodes)) == node) for node in np.nonzero(~nodes)[0]]
            of_circuit, of_model = self.scores_without(candidates)
            nodes = candidates[int(np.abs(of_circuit - of_model).argmax())]
        return nodes

    def node_effects(self, sets: Sequence[NodeSet]) -> tuple[Float[np.ndarray, " node"], list[str]]:
        """The largest change of the circuit's metric that knocking out each node makes, and the set beside which.

        The empty set is tried too.
        """
        n = len(self.nodes)
        sets = [np.zeros(n, bool), *sets]
        before = self.mean_scores([self.without(self.circuit, nodes) for nodes in sets])
        effects, beside = np.zeros(n), [_EMPTY] * n
        for node in range(n):
            is_node = np.arange(n) == node
            after = self.mean_scores([self.without(self.circuit, nodes | is_node) for nodes in sets])
            changes = np.abs(after - before)
            effects[node], beside[node] = changes.max(), self.set_name(sets[int(changes.argmax())])
        return effects, beside

    def set_name(self, nodes: NodeSet) -> str:
        """A set's nodes, joined by commas."""
        names = (name for name, is_in in zip(self.nodes, nodes.tolist(), strict=True) if is_in)
        return ", ".join(names) or _EMPTY
