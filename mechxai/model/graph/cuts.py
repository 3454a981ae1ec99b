"""The writes of heads and MLPs when one writer is changed in one of their inputs, for all edges into a block."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.graph import Graph
from mechxai.core.site import Site
from mechxai.model.dense.attention import attend
from mechxai.model.dense.blocks import DenseModel
from mechxai.model.graph.writes import Blocks, Writes, Written

_ROWS_AT_ONCE = 64
Parts = Float[Tensor, "writer prompt pos _ d_head"]


@dataclass(frozen=True)
class Cut:
    """One edge, and the activations that change with it.

    Attributes:
        reader: index in ``graph.readers``.
        writer: index in ``graph.writers``.
        changed: site of a head or an MLP -> its new value, ``[prompt, pos, d]``; a group's keys and values change all
            its heads. For the logits, the last block's output.
    """

    reader: int
    writer: int
    changed: dict[Site, Float[Tensor, "prompt pos d"]]


@dataclass(frozen=True)
class Cuts:
    """Every edge of a model, changed one at a time.

    Attributes:
        blocks: of the model.
        base: the run in which edges are changed.
        moves: the vector added to a reader's input for each writer, ``[writer, prompt, pos, d_model]``; updated from
            block to block if MLPs follow.
        mlps_follow: whether MLPs between writer and reader respond to the change; otherwise nothing between them does.
    """

    blocks: Blocks
    base: Writes
    moves: Written
    mlps_follow: bool = False

    @property
    def dense(self) -> DenseModel:
        """The blocks as plain tensors."""
        return self.blocks.dense

    @property
    def graph(self) -> Graph:
        """Nodes and edges of the blocks."""
        return self.blocks.graph

    def blocks_in_turn(self) -> Iterator[tuple[int, Iterator[Cut]]]:
        """The edges into each block's attention, then into its MLP.

        Yields:
            The layer and its cuts, which must be consumed before the next layer's.

        Cost: three projections and three attentions, and an MLP, of each block per writer before it.
        """
        for layer in range(self.graph.n_layers):
            yield layer, self._into_attention(layer)
            if self.graph.mlps:
                written = self._mlp_written(layer)
                yield layer, self._into_mlp(layer, written)
                if self.mlps_follow:
                    at = self.graph.n_before_attention(layer) + self.graph.n_heads
                    self.moves[: len(written)] += written - self.base.values[at]

    def into_logits(self) -> Written:
        """The last block's output with each writer changed, ``[writer, prompt, pos, d_model]``; after all blocks."""
        return self.base.residuals[-1] + self.moves

    def _into_attention(self, layer: int) -> Iterator[Cut]:
        """Cuts with the ``z`` of the heads that a reader's queries, keys or values change.

        Yields:
            One per reader and writer.
        """
        n = self.graph.n_before_attention(layer)
        for low in range(0, n, self._at_once):
            writers = range(low, min(low + self._at_once, n))
            moved, before = self._projected(layer, self.moves[writers.start : writers.stop])
            for number, part in enumerate("qkv"):
                parts = list(before)
                parts[number] = moved[number]
                heads_interact = part != "v" and self.dense.blocks[layer].attention.heads_interact
                z = None if heads_interact else self._z(layer, parts)
                n_parts = self.graph.n_heads if part == "q" else self.graph.n_kv_heads
                for reader in range(n_parts):
                    heads = range(reader * self.graph.n_heads // n_parts, (reader + 1) * self.graph.n_heads // n_parts)
                    if heads_interact:  # the norm over all heads responds to the change of one
                        parts[number] = before[number].clone()
                        parts[number][..., reader, :] = moved[number][..., reader, :]
                        z, heads = self._z(layer, parts), range(self.graph.n_heads)
                    if z is not None:
                        row = self.graph.first_reader(layer) + self._offset(part) + reader
                        yield from self._of_reader(row, writers, z, layer=layer, heads=heads)

    def _into_mlp(self, layer: int, written: Written) -> Iterator[Cut]:
        """Cuts with the MLP's write.

        Yields:
            One per writer.
        """
        reader = self.graph.first_reader(layer) + self.graph.n_heads + 2 * self.graph.n_kv_heads
        for writer, value in enumerate(written):
            yield Cut(reader, writer, {Site("mlp_out", layer): value})

    def _mlp_written(self, layer: int) -> Written:
        """The MLP's write for each writer before it."""
        block, read = self.dense.blocks[layer], self.base.middles[layer]
        values = [
            block.mlp_out((read + move).flatten(0, 1)).view_as(read)
            for move in self.moves[: self.graph.n_before_mlp(layer)]
        ]
        return torch.stack(values)

    @property
    def _at_once(self) -> int:
        return max(1, _ROWS_AT_ONCE // self.moves.shape[1])

    def _projected(self, layer: int, moves: Written) -> tuple[list[Parts], list[Parts]]:
        """Queries, keys and values with the input moved by every writer, and without."""
        block, shape, read = self.dense.blocks[layer], moves.shape[:3], self.base.residuals[layer]
        normalized, unchanged = block.norm1(read + moves), block.norm1(read)
        projections = (block.attention.q, block.attention.k, block.attention.v)
        moved = [part(normalized.flatten(0, 2)).view(*shape, -1, self.dense.d_head) for part in projections]
        before = [part(unchanged.flatten(0, 1)).view(*shape[1:], -1, self.dense.d_head) for part in projections]
        return moved, [part.expand_as(other) for part, other in zip(before, moved, strict=True)]

    def _z(self, layer: int, parts: list[Parts]) -> Parts:
        """``z`` of every head from queries, keys and values, ``[writer, prompt, pos, head, d_head]``."""
        attention, shape = self.dense.blocks[layer].attention, parts[0].shape[:2]
        q, k, v = (part.flatten(0, 1) for part in parts)
        q, k, v = attention.queries(q, 0), attention.keys(k, 0), attention.values(v)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        return attend(q, k, v, rule=attention.rule).unflatten(0, shape)

    def _offset(self, part: str) -> int:
        """The first reader of queries, keys or values among those of a layer."""
        return {"q": 0, "k": self.graph.n_heads, "v": self.graph.n_heads + self.graph.n_kv_heads}[part]

    def _of_reader(self, reader: int, writers: range, z: Parts, *, layer: int, heads: range) -> Iterator[Cut]:
        """The cuts of one reader.

        Yields:
            One per writer.
        """
        for at, writer in enumerate(writers):
            yield Cut(reader, writer, {Site("z", layer, head=head): z[at, :, :, head] for head in heads})
