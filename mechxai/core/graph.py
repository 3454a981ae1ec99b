"""A transformer as a graph: who writes into the residual stream, who reads from it, and which writers a reader sees.

Nodes that write are ``embed``, heads ``a{layer}.h{head}`` and MLPs ``m{layer}``. Inputs that read are a head's
``a5.h1.q``, its ``.k`` and ``.v``, an MLP ``m3`` and ``logits``. Under grouped-query attention the keys and values of
a group are one input each, ``a5.g0.k``, which all heads of the group share.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechxai.core.architecture import Architecture
from mechxai.core.errors import SiteError, nearest

EMBED, LOGITS = "embed", "logits"


@dataclass(frozen=True)
class Graph:
    """The graph of an architecture. An edge is a reader and a writer before it; there are no others.

    In parallel blocks the MLP does not read what the same block's heads write.

    Attributes:
        n_layers: blocks.
        n_heads: heads per block.
        n_kv_heads: key/value heads per block.
        mlps: whether blocks have MLPs.
        parallel: whether attention and MLP of a block read the same residual stream.
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int
    mlps: bool
    parallel: bool

    @staticmethod
    @lru_cache(maxsize=16)  # what is cached below stays with it
    def of(architecture: Architecture) -> "Graph":
        """The graph of a model's architecture."""
        a = architecture
        return Graph(a.n_layers, a.n_heads, a.n_kv_heads, not a.attn_only, a.parallel)

    @property
    def per_layer(self) -> int:
        """Writers of a block."""
        return self.n_heads + self.mlps

    @cached_property
    def writers(self) -> tuple[str, ...]:
        """Nodes that write, in the order in which they do."""
        found = [EMBED]
        for layer in range(self.n_layers):
            found += [f"a{layer}.h{head}" for head in range(self.n_heads)]
            found += [f"m{layer}"] if self.mlps else []
        return tuple(found)

    @cached_property
    def readers(self) -> tuple[str, ...]:
        """Inputs that read: of every block queries, keys, values and MLP; last the logits."""
        found: list[str] = []
        for layer in range(self.n_layers):
            found += self.attention_readers(layer)
            found += [f"m{layer}"] if self.mlps else []
        return (*found, LOGITS)

    def attention_readers(self, layer: int) -> list[str]:
        """The inputs of a block's attention: queries, keys, values."""
        kv = "h" if self.n_kv_heads == self.n_heads else "g"
        keys = [f"a{layer}.{kv}{number}" for number in range(self.n_kv_heads)]
        queries = [f"a{layer}.h{head}.q" for head in range(self.n_heads)]
        return [*queries, *(f"{key}.k" for key in keys), *(f"{key}.v" for key in keys)]

    def first_reader(self, layer: int) -> int:
        """Number of a block's first input in `readers`."""
        return layer * (self.n_heads + 2 * self.n_kv_heads + self.mlps)

    def n_before_attention(self, layer: int) -> int:
        """How many writers a block's attention sees: the first so many."""
        return 1 + layer * self.per_layer

    def n_before_mlp(self, layer: int) -> int:
        """How many writers a block's MLP sees."""
        return self.n_before_attention(layer) + (0 if self.parallel else self.n_heads)

    @cached_property
    def seen(self) -> tuple[int, ...]:
        """How many writers each reader sees: the first so many."""
        found: list[int] = []
        for layer in range(self.n_layers):
            found += [self.n_before_attention(layer)] * len(self.attention_readers(layer))
            found += [self.n_before_mlp(layer)] if self.mlps else []
        return (*found, len(self.writers))

    @cached_property
    def reads(self) -> Bool[Tensor, "reader writer"]:
        """Which writers each reader sees."""
        return torch.arange(len(self.writers))[None] < torch.tensor(self.seen)[:, None]

    @cached_property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """Every edge as writer and reader, reader by reader."""
        return tuple((src, dest) for dest, n in zip(self.readers, self.seen, strict=True) for src in self.writers[:n])

    def of_matrix(self, values: Float[Tensor, "*more reader writer"]) -> Float[Tensor, "*more edge"]:
        """Values by reader and writer as values by edge, in the order of `edges`."""
        return values[..., self.reads.to(values.device)]

    def chosen(self, edges: Bool[Tensor, "*more edge"]) -> Bool[Tensor, "*more reader writer"]:
        """Edges as a table of readers and writers."""
        table = torch.zeros(*edges.shape[:-1], *self.reads.shape, dtype=torch.bool, device=edges.device)
        table[..., self.reads.to(edges.device)] = edges
        return table

    def numbers(self, edges: Sequence[tuple[str, str]]) -> Int[Tensor, " chosen"]:
        """Where edges stand in `edges`.

        Raises:
            SiteError: an edge that the graph does not have; names the closest.
        """
        known = {edge: number for number, edge in enumerate(self.edges)}
        for src, dest in edges:
            if (src, dest) not in known:
                allowed = [f"{one} -> {other}" for one, other in known]
                raise SiteError(
                    f"The edge {src} -> {dest} was asked",
                    got="no such edge in this model",
                    allowed=nearest(f"{src} -> {dest}", allowed),
                )
        return torch.tensor([known[src, dest] for src, dest in edges], dtype=torch.long)


def node_of(reader: str) -> str:
    """The node that an input belongs to: ``a5.h1`` of ``a5.h1.q``; of a group of heads ``a5.g0``."""
    return reader[:-2] if reader.endswith((".q", ".k", ".v")) else reader
