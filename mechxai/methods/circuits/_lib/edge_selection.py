"""From edge scores to circuits: the top edges, pruned to paths from the embedding to the logits."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.core.graph import EMBED, LOGITS, Graph, node_of

Rank = Literal["absolute", "signed"]
FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of the edges, as in MIB


def edge_count(fraction: float, n_edges: int) -> int:
    """How many edges a fraction of them is, rounded down."""
    return int(fraction * n_edges + 1e-9)


def ranked_sizes(scores: Float[np.ndarray, "*more edge"], rank: Rank) -> Float[np.ndarray, "*more edge"]:
    """The values that edges are ranked by: the absolute scores, or the signed ones."""
    return np.abs(scores) if rank == "absolute" else np.asarray(scores)


def top_edges(
    scores: Float[np.ndarray, " edge"], fractions: Sequence[float], *, rank: Rank
) -> Bool[Tensor, "fraction edge"]:
    """The highest edges, as many as each fraction says (rounded down).

    Args:
        scores: of every edge; NaN comes last.
        fractions: of the edges.
        rank: by ``absolute`` score, or ``signed``.
    """
    order = np.argsort(-np.nan_to_num(ranked_sizes(scores, rank), nan=-np.inf), kind="stable")
    circuits = torch.zeros(len(fractions), len(scores), dtype=torch.bool)
    for row, fraction in enumerate(fractions):
        circuits[row, torch.from_numpy(order[: edge_count(fraction, len(scores))].copy())] = True
    return circuits


def random_circuits(
    graph: Graph, fractions: Sequence[float], *, draws: int, generator: np.random.Generator
) -> Bool[Tensor, "circuit edge"]:
    """Random edges, pruned, in circuits of each fraction; draw by draw."""
    circuits = [
        pruned(graph, top_edges(generator.random(len(graph.edges)), fractions, rank="signed")) for _ in range(draws)
    ]
    return torch.cat(circuits) if circuits else torch.zeros(0, len(graph.edges), dtype=torch.bool)


def pruned(graph: Graph, edges: Bool[Tensor, "circuit edge"]) -> Bool[Tensor, "circuit edge"]:
    """The edges that lie on a path from the embedding to the logits within their circuit."""
    table = graph.chosen(edges).cpu()  # [circuit, reader, writer]
    node_table = reader_nodes(graph)  # [reader, node]; the last column is the logits
    reached = torch.zeros(len(table), len(graph.writers), dtype=torch.bool)
    reached[:, graph.writers.index(EMBED)] = True
    while True:  # nodes that the embedding reaches
        fed = (table & reached[:, None]).any(2)  # [circuit, reader]
        more = reached | (fed.float() @ node_table[:, :-1].float() > 0)
        if torch.equal(more, reached):
            break
        reached = more
    useful = torch.zeros(len(table), len(graph.writers) + 1, dtype=torch.bool)
    useful[:, -1] = True
    while True:  # nodes that reach the logits
        wanted = useful.float() @ node_table.float().T > 0  # [circuit, reader]
        more = useful.clone()
        more[:, :-1] |= (table & wanted[:, :, None]).any(1)
        if torch.equal(more, useful):
            break
        useful = more
    connected = table & reached[:, None] & (useful.float() @ node_table.float().T > 0)[:, :, None]
    return graph.of_matrix(connected.float()).bool()


def reader_nodes(graph: Graph) -> Bool[Tensor, "reader node"]:
    """The node of each reader, among the writers and last the logits; keys and values of a group feed all its heads."""
    names = [*graph.writers, LOGITS]
    group_size = graph.n_heads // graph.n_kv_heads
    table = torch.zeros(len(graph.readers), len(names), dtype=torch.bool)
    for row, reader in enumerate(graph.readers):
        node = node_of(reader)
        if ".g" in node:
            layer, group = node.split(".g")
            nodes = [f"{layer}.h{head}" for head in range(int(group) * group_size, (int(group) + 1) * group_size)]
        else:
            nodes = [node]
        table[row, [names.index(name) for name in nodes]] = True
    return table
