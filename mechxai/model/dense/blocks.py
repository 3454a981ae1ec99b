"""Dense blocks: a transformer as plain tensors, views of the model's weights without modules or hooks.

A block is composed of parts: attention and MLP, a norm before and a norm after each of them. Parts that a model lacks
are identities. `read_dense` composes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.model.dense.attention import DenseAttention
from mechxai.model.dense.parts import NO_NORM, Mlp, Norm

Vectors = Float[Tensor, "row d_model"]
_MLP_ROWS = {"cpu": 512}  # rows through an MLP at a time, enough for matrix products; on other devices all


@dataclass(frozen=True)
class DenseBlock:
    """One block: ``residual + post1(attention(norm1(residual)))``, and likewise its MLP.

    A factor on the way into the residual stream (Granite) is part of the weights that write.

    Attributes:
        norm1: before attention.
        attention: from normalised vectors to the output of attention.
        norm2: before the MLP.
        mlp: from normalised vectors to the output of the MLP, or None.
        post1: after attention.
        post2: after the MLP.
        parallel: whether attention and MLP read the same residual stream.
    """

    norm1: Norm
    attention: DenseAttention
    norm2: Norm
    mlp: Mlp | None
    post1: Norm = NO_NORM
    post2: Norm = NO_NORM
    parallel: bool = False

    def attn_out(self, z: Float[Tensor, "row heads_width"], *, out: Tensor | None = None) -> Vectors:
        """Site ``attn_out``, the output of attention behind its norm, from the heads' ``z``."""
        return self.post1(self.attention.o(z, out=out))

    def mlp_out(self, read: Vectors) -> Vectors:
        """Site ``mlp_out``, the MLP's output behind its norm; its wide activations exist for few rows at a time.

        Zero for blocks without an MLP.
        """
        if self.mlp is None:
            return torch.zeros_like(read)
        size = max(1, _MLP_ROWS.get(read.device.type, len(read)))
        if len(read) <= size or (torch.is_grad_enabled() and read.requires_grad):
            return self.post2(self.mlp(self.norm2(read)))
        out = torch.empty_like(read)
        for first in range(0, len(read), size):
            rows = slice(first, first + size)
            out[rows] = self.post2(self.mlp(self.norm2(read[rows])))
        return out


@dataclass(frozen=True)
class DenseModel:
    """All blocks and the final norm.

    Attributes:
        blocks: in order.
        final: the norm before the unembedding.
        n_heads: query heads.
        n_kv_heads: key/value heads.
        d_head: size of a head.
        longest: the length up to which the blocks equal the model's; None for any length.
    """

    blocks: Sequence[DenseBlock]
    final: Norm
    n_heads: int
    n_kv_heads: int
    d_head: int
    longest: int | None = None

    def heads_out(self, layer: int) -> Float[Tensor, "head d_head d_model"]:
        """``W_O`` of every head of a layer, before the norm and the factor that may follow."""
        return self.blocks[layer].attention.o.weight.reshape(self.n_heads, self.d_head, -1)

    def by_head(self, values: Tensor, axis: int) -> Tensor:
        """Keys or values repeated along an axis, so that each query head has its own."""
        return values.repeat_interleave(self.n_heads // self.n_kv_heads, axis)
