"""Runs of circuits: every reader sees the circuit's writers as they are, and a reference in place of the others.

Many circuits run together, each prompt once per circuit. A reader sees ``references + sum(written - reference)`` over
the writers its circuit has, and its norm is computed of that sum, so nothing is approximated.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.core.graph import Graph
from mechxai.model.dense.blocks import Affine, DenseBlock, DenseModel, attend
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
        return _CircuitRun(blocks.dense, blocks.graph, references, circuits.to(first.device)).run(first)


@dataclass
class _CircuitRun:
    dense: DenseModel
    graph: Graph
    references: Written
    circuits: Circuits

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
            before, self.base = self.base, self._with_heads(block, n)
            self._write(n, self._attention(block, self._read(slice(row, row + n_readers), n, base=before)))
            row += n_readers
            if self.graph.mlps:  # a parallel block's MLP does not see the heads of its block
                seen = before if self.graph.parallel else self.base
                read = self._read(slice(row, row + 1), self.graph.n_before_mlp(layer), base=seen)
                at = n + self.graph.n_heads
                self._write(at, block.mlp(read.flatten(0, 3)).view_as(read))
                self.base = self.base + self.references[at]
                row += 1
        return self._read(slice(row, row + 1), len(self.graph.writers), base=self.base)[:, 0]

    def _write(self, at: int, values: Float[Tensor, "circuit n prompt pos d_model"]) -> None:
        to = slice(at, at + values.shape[1])
        if self.circuits.requires_grad:
            self.changes = torch.cat([self.changes, values - self.references[to]], 1)
        else:
            self.changes[:, to] = values - self.references[to]

    def _with_heads(self, block: DenseBlock, n: int) -> Streams:
        base = self.base + self.references[n : n + self.graph.n_heads].sum(0)
        return base if block.o.bias is None else base + block.o.bias

    def _read(self, rows: slice, n: int, *, base: Streams) -> Float[Tensor, "circuit reader prompt pos d_model"]:
        """The input of readers, from the first ``n`` writers."""
        chosen = self.circuits[:, rows, :n].to(self.changes.dtype)
        changes = chosen @ self.changes[:, :n].flatten(2)
        return changes.view(*chosen.shape[:2], *self.changes.shape[2:]) + base

    def _attention(
        self, block: DenseBlock, read: Float[Tensor, "circuit reader prompt pos d_model"]
    ) -> Float[Tensor, "circuit head prompt pos d_model"]:
        """The writes of heads whose queries, keys and values have separate inputs."""
        n_circuits, _, n_prompts = read.shape[:3]
        counts = [self.dense.n_heads, self.dense.n_kv_heads, self.dense.n_kv_heads]
        parts = read.split(counts, 1)
        q, k, v = (
            self._projected(affine, block.norm1(part)).flatten(0, 1)  # [circuit * prompt, pos, part, d_head]
            for affine, part in zip((block.q, block.k, block.v), parts, strict=True)
        )
        if block.rotary is not None:
            q, k = block.rotary(q, 0), block.rotary(k, 0)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        z = attend(q * block.scale, k, v, prefix=None, offset=0)  # [row, pos, head, d_head]
        out = block.o.weight.reshape(self.dense.n_heads, self.dense.d_head, -1)
        written = torch.einsum("bphe,hed->hbpd", z, out.to(z))
        return written.unflatten(1, (n_circuits, n_prompts)).transpose(0, 1)

    def _projected(
        self, affine: Affine, normalized: Float[Tensor, "circuit part prompt pos d_model"]
    ) -> Float[Tensor, "circuit prompt pos part d_head"]:
        weight = affine.weight.reshape(affine.weight.shape[0], -1, self.dense.d_head).to(normalized)
        projected = torch.einsum("cnbpd,dne->cbpne", normalized, weight)
        return projected if affine.bias is None else projected + affine.bias.view(-1, self.dense.d_head)
