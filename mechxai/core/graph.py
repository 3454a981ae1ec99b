"""The computational graph of a transformer: the writers to the residual stream, its readers, and the edges between.

Writers are ``embed``, heads ``a{layer}.h{head}`` and MLPs ``m{layer}``. Readers are a head's query ``a5.h1.q``, key
``.k`` and value ``.v`` inputs, an MLP ``m3`` and ``logits``. Under grouped-query attention the heads of a group share
one key and one value input, ``a5.g0.k``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechxai.core.architecture import Architecture
from mechxai.core.cached import cached_property
from mechxai.core.errors import SiteError, unknown

EMBED, LOGITS = "embed", "logits"


@dataclass(frozen=True)
class Graph:
    """The graph of an architecture, with an edge from every writer to every later reader.

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
    @lru_cache(maxsize=16)  # so that the cached properties are computed once per architecture
    def of(architecture: Architecture) -> "Graph":
        """The graph of a model's architecture."""
        a = architecture
        return Graph(a.n_layers, a.n_heads, a.n_kv_heads, not a.attn_only, a.parallel)

    @property
    def per_layer(self) -> int:
        """Number of writers per block."""
        return self.n_heads + self.mlps

    @cached_property
    def writers(self) -> tuple[str, ...]:
        """All writers, in the order in which they run."""
        names = [EMBED]
        for layer in range(self.n_layers):
            names += [f"a{layer}.h{head}" for head in range(self.n_heads)]
            names += [f"m{layer}"] if self.mlps else []
        return tuple(names)

    @cached_property
    def readers(self) -> tuple[str, ...]:
        """All readers: queries, keys, values and MLP of every block, then the logits."""
        names: list[str] = []
        for layer in range(self.n_layers):
            names += self.attention_readers(layer)
            names += [f"m{layer}"] if self.mlps else []
        return (*names, LOGITS)

    def attention_readers(self, layer: int) -> list[str]:
        """The readers of a block's attention: queries, keys, values."""
        kv = "h" if self.n_kv_heads == self.n_heads else "g"
        keys = [f"a{layer}.{kv}{number}" for number in range(self.n_kv_heads)]
        queries = [f"a{layer}.h{head}.q" for head in range(self.n_heads)]
        return [*queries, *(f"{key}.k" for key in keys), *(f"{key}.v" for key in keys)]

    def first_reader(self, layer: int) -> int:
        """The index of a block's first reader in `readers`."""
        return layer * (self.n_heads + 2 * self.n_kv_heads + self.mlps)

    def n_before_attention(self, layer: int) -> int:
        """The number of writers before a block's attention."""
        return 1 + layer * self.per_layer

    def n_before_mlp(self, layer: int) -> int:
        """The number of writers before a block's MLP."""
        return self.n_before_attention(layer) + (0 if self.parallel else self.n_heads)

    @cached_property
    def seen(self) -> tuple[int, ...]:
        """The number of writers before each reader."""
        counts: list[int] = []
        for layer in range(self.n_layers):
            counts += [self.n_before_attention(layer)] * len(self.attention_readers(layer))
            counts += [self.n_before_mlp(layer)] if self.mlps else []
        return (*counts, len(self.writers))

    @cached_property
    def reads(self) -> Bool[Tensor, "reader writer"]:
        """True where a writer comes before a reader."""
        return torch.arange(len(self.writers))[None] < torch.tensor(self.seen)[:, None]

    @cached_property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """Every edge as ``(writer, reader)``, reader by reader."""
        return tuple((src, dest) for dest, n in zip(self.readers, self.seen, strict=True) for src in self.writers[:n])

    def of_matrix(self, values: Float[Tensor, "*more reader writer"]) -> Float[Tensor, "*more edge"]:
        """The entries of a reader-by-writer matrix that are edges, in the order of `edges`."""
        return values[..., self.reads.to(values.device)]

    def chosen(self, edges: Bool[Tensor, "*more edge"]) -> Bool[Tensor, "*more reader writer"]:
        """A mask over edges as a reader-by-writer matrix."""
        matrix = torch.zeros(*edges.shape[:-1], *self.reads.shape, dtype=torch.bool, device=edges.device)
        matrix[..., self.reads.to(edges.device)] = edges
        return matrix

    def numbers(self, edges: Sequence[tuple[str, str]]) -> Int[Tensor, " chosen"]:
        """The indices of some edges in `edges`.

        Raises:
            SiteError: an edge that the graph does not have; the message names the closest.
        """
        index = {edge: number for number, edge in enumerate(self.edges)}
        for src, dest in edges:
            if (src, dest) not in index:
                raise SiteError(unknown("edge", f"{src} -> {dest}", [f"{src} -> {dest}" for src, dest in index]))
        return torch.tensor([index[src, dest] for src, dest in edges], dtype=torch.long)


def node_of(reader: str) -> str:
    """The node of a reader: ``a5.h1`` for ``a5.h1.q``, ``a5.g0`` for the key input of a group of heads."""
    return reader[:-2] if reader.endswith((".q", ".k", ".v")) else reader
