"""From scores of edges to circuits: the highest so many, less what lies on no way from the input to the logits."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.core.graph import EMBED, LOGITS, Graph, node_of

RANKS = ("absolute", "signed")
FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of the edges, as MIB has them


def highest(
    scores: Float[np.ndarray, " edge"], fractions: Sequence[float], *, rank: str
) -> Bool[Tensor, "fraction edge"]:
    """The edges with the highest scores, so many of them as each fraction says (rounded down).

    Args:
        scores: of every edge; what is not a number comes last.
        fractions: of the edges.
        rank: by ``absolute`` size, or ``signed``.
    """
    keys = np.nan_to_num(np.abs(scores) if rank == "absolute" else scores, nan=-np.inf)
    order = np.argsort(-keys, kind="stable")
    chosen = torch.zeros(len(fractions), len(scores), dtype=torch.bool)
    for row, fraction in enumerate(fractions):
        chosen[row, torch.from_numpy(order[: int(fraction * len(scores) + 1e-9)].copy())] = True
    return chosen


def pruned(graph: Graph, edges: Bool[Tensor, "circuit edge"]) -> Bool[Tensor, "circuit edge"]:
    """The edges that lie on a way from the embedding to the logits within their circuit."""
    table = graph.chosen(edges).cpu()  # [circuit, reader, writer]
    into = nodes_read(graph)  # [reader, node]: whose input a reader is; the last column is the logits
    reached = torch.zeros(len(table), len(graph.writers), dtype=torch.bool)
    reached[:, graph.writers.index(EMBED)] = True
    while True:  # what the embedding reaches
        fed = (table & reached[:, None]).any(2)  # [circuit, reader]
        more = reached | (fed.float() @ into[:, :-1].float() > 0)
        if torch.equal(more, reached):
            break
        reached = more
    useful = torch.zeros(len(table), len(graph.writers) + 1, dtype=torch.bool)
    useful[:, -1] = True
    while True:  # what reaches the logits
        wanted = useful.float() @ into.float().T > 0  # [circuit, reader]
        more = useful.clone()
        more[:, :-1] |= (table & wanted[:, :, None]).any(1)
        if torch.equal(more, useful):
            break
        useful = more
    kept = table & reached[:, None] & (useful.float() @ into.float().T > 0)[:, :, None]
    return graph.of_matrix(kept.float()).bool()


def nodes_read(graph: Graph) -> Bool[Tensor, "reader node"]:
    """Whose input each reader is: writers, and last the logits. Keys and values of a group are of all its heads."""
    names = [*graph.writers, LOGITS]
    heads = graph.n_heads // graph.n_kv_heads
    table = torch.zeros(len(graph.readers), len(names), dtype=torch.bool)
    for row, reader in enumerate(graph.readers):
        node = node_of(reader)
        if ".g" in node:
            layer, group = node.split(".g")
            own = [f"{layer}.h{head}" for head in range(int(group) * heads, (int(group) + 1) * heads)]
        else:
            own = [node]
        table[row, [names.index(one) for one in own]] = True
    return table
