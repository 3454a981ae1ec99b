"""Runs of circuits: every reader sees the circuit's writers as they are, and a reference in place of the others.

Many circuits run together, each prompt once per circuit. A reader sees ``references + sum(written - reference)`` over
the writers its circuit has, and its norm is computed of that sum, so nothing is approximated.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.core.graph import Graph
from mechxai.model.dense.attention import attend
from mechxai.model.dense.blocks import DenseBlock, DenseModel
from mechxai.model.dense.parts import Affine
from mechxai.model.graph.writes import Blocks, Streams, Written

# the writers that each reader sees, or the share of each
Circuits = Bool[Tensor, "circuit reader writer"] | Float[Tensor, "circuit reader writer"]


def run_circuits(
    blocks: Blocks, first: Streams, references: Written, *, circuits: Circuits
) -> Float[Tensor, "circuit prompt pos d_model"]:
    """The last block's output under every circuit.

    Args:
        blocks: of the model.
        first: the write of ``embed``.
        references: the writes that replace those a reader does not see.
        circuits: the writers that each reader sees; gradients flow back to shares that require them.

    Cost: about twice a forward pass per circuit and prompt.
    """
    with torch.set_grad_enabled(circuits.requires_grad):
        return _CircuitRun(blocks, references, circuits.to(first.device)).run(first)


@dataclass
class _CircuitRun:
    blocks: Blocks
    references: Written
    circuits: Circuits

    @property
    def dense(self) -> DenseModel:
        """The blocks as plain tensors."""
        return self.blocks.dense

    @property
    def graph(self) -> Graph:
        """Nodes and edges of the blocks."""
        return self.blocks.graph

    def run(self, first: Streams) -> Float[Tensor, "circuit prompt pos d_model"]:
        """Runs block by block; ``self.base`` is the residual stream if every writer so far were its reference."""
        change = (first - self.references[0]).expand(len(self.circuits), 1, *first.shape)
        if self.circuits.requires_grad:  # a growing tensor: autograd needs earlier ones unchanged
            self.changes = change
        else:
            self.changes = first.new_zeros(len(self.circuits), len(self.graph.writers), *first.shape)
            self.changes[:, :1] = change
        self.base = self.references[0].clone()
        row = 0
        for layer, block in enumerate(self.dense.blocks):
            n_readers, n = len(self.graph.attention_readers(layer)), self.graph.n_before_attention(layer)
            before = self.base
            self.base = before + self.blocks.added(layer, self.references[self.blocks.heads_of(layer)].sum(0))
            self._write(n, self._attention(block, self._read(slice(row, row + n_readers), n, base=before)))
            row += n_readers
            if self.graph.mlps:  # a parallel block's MLP does not see the heads of its block
                seen = before if self.graph.parallel else self.base
                read = self._read(slice(row, row + 1), self.graph.n_before_mlp(layer), base=seen)
                at = n + self.graph.n_heads
                self._write(at, block.mlp_out(read.flatten(0, 3)).view_as(read))
                self.base = self.base + self.references[at]
                row += 1
        return self._read(slice(row, row + 1), len(self.graph.writers), base=self.base)[:, 0]

    def _write(self, at: int, values: Float[Tensor, "circuit n prompt pos d_model"]) -> None:
        to = slice(at, at + values.shape[1])
        if self.circuits.requires_grad:
            self.changes = torch.cat([self.changes, values - self.references[to]], 1)
        else:
            self.changes[:, to] = values - self.references[to]

    def _read(self, rows: slice, n: int, *, base: Streams) -> Float[Tensor, "circuit reader prompt pos d_model"]:
        """The input of readers, from the first ``n`` writers."""
        chosen = self.circuits[:, rows, :n].to(self.changes.dtype)
        shape = (*chosen.shape[:2], *self.changes.shape[2:])
        normed = [layer for layer in self.blocks.normed_layers() if self.blocks.heads_of(layer).stop <= n]
        one_by_one = torch.ones(n, dtype=torch.bool, device=chosen.device)
        for layer in normed:
            one_by_one[self.blocks.heads_of(layer)] = False
        read = (chosen[..., one_by_one] @ self.changes[:, :n][:, one_by_one].flatten(2)).view(shape) + base
        for layer in normed:  # the norm responds to all heads that the reader sees together
            heads = self.blocks.heads_of(layer)
            together = self.references[heads].sum(0)
            change = (chosen[..., heads] @ self.changes[:, heads].flatten(2)).view(shape)
            read = read + self.blocks.added(layer, together + change) - self.blocks.added(layer, together)
        return read

    def _attention(
        self, block: DenseBlock, read: Float[Tensor, "circuit reader prompt pos d_model"]
    ) -> Float[Tensor, "circuit head prompt pos d_model"]:
        """The writes of heads whose queries, keys and values have separate inputs."""
        n_circuits, _, n_prompts = read.shape[:3]
        counts = [self.dense.n_heads, self.dense.n_kv_heads, self.dense.n_kv_heads]
        parts = read.split(counts, 1)
        attention = block.attention
        q, k, v = (
            self._projected(affine, block.norm1(part)).flatten(0, 1)  # [circuit * prompt, pos, part, d_head]
            for affine, part in zip((attention.q, attention.k, attention.v), parts, strict=True)
        )
        q, k, v = attention.queries(q, 0), attention.keys(k, 0), attention.values(v)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        z = attend(q, k, v, rule=attention.rule)  # [row, pos, head, d_head]
        out = attention.o.weight.reshape(self.dense.n_heads, self.dense.d_head, -1)
        written = torch.einsum("bphe,hed->hbpd", z, out.to(z))
        return written.unflatten(1, (n_circuits, n_prompts)).transpose(0, 1)

    def _projected(
        self, affine: Affine, normalized: Float[Tensor, "circuit part prompt pos d_model"]
    ) -> Float[Tensor, "circuit prompt pos part d_head"]:
        weight = affine.weight.reshape(affine.weight.shape[0], -1, self.dense.d_head).to(normalized)
        projected = torch.einsum("cnbpd,dne->cbpne", normalized, weight)
        return projected if affine.bias is None else projected + affine.bias.view(-1, self.dense.d_head)
