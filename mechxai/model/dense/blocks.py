"""Dense blocks: a transformer as plain tensors, views of the model's weights without modules or hooks.

`DenseBlock` covers the common kind: a norm before attention and before the MLP, LayerNorm or RMSNorm, grouped-query
attention or not, learned or rotary positions, plain or gated MLP, serial or parallel. For any other kind `read_dense`
returns None, and callers use the model's modules instead.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Vectors = Float[Tensor, "row d_model"]
_ROWS = 128  # rows that fit a processor's cache
_MLP_ROWS = {"cpu": 512}  # rows through an MLP at a time, enough for matrix products; on other devices all


@dataclass(frozen=True)
class Affine:
    """``x @ weight + bias``.

    Attributes:
        weight: ``[n_in, n_out]`` with any strides; a view of the model's weight.
        bias: ``[n_out]`` or None.
    """

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor, *, out: Tensor | None = None) -> Tensor:
        """``[row, n_in]`` to ``[row, n_out]``, written into ``out`` if there is one."""
        if self.bias is None:
            return torch.matmul(x, self.weight, out=out)
        return torch.addmm(self.bias, x, self.weight, out=out)


@dataclass(frozen=True)
class Norm:
    """LayerNorm, RMSNorm or no norm, with torch's kernels.

    Attributes:
        kind: ``LN``, ``RMS`` or ``none``.
        eps: added to the variance.
        weight: ``[d_model]`` or None.
        bias: ``[d_model]`` or None.
    """

    kind: str
    eps: float
    weight: Tensor | None = None
    bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """The normalised vectors."""
        if self.kind == "LN":
            return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
        return F.rms_norm(x, x.shape[-1:], self.weight, self.eps) if self.kind == "RMS" else x


@dataclass(frozen=True)
class Rotary:
    """Rotary position embedding.

    Attributes:
        table: number of positions -> cosines and sines, ``[pos, rotary_dim]`` each.
        adjacent: whether pairs are neighbours (GPT-J) rather than halves (NeoX, Llama).
    """

    table: Callable[[int], tuple[Tensor, Tensor]]
    adjacent: bool

    def __call__(self, x: Float[Tensor, "row pos head d_head"], start: int) -> Float[Tensor, "row pos head d_head"]:
        """Queries or keys of positions from ``start`` on, rotated."""
        stop = start + x.shape[1]
        cos, sin = (part[start:stop, None].to(x.dtype) for part in self.table(stop))
        n = cos.shape[-1]
        rotated, rest = x[..., :n], x[..., n:]
        if self.adjacent:
            flipped = torch.stack([-rotated[..., 1::2], rotated[..., ::2]], -1).flatten(-2)
        else:
            flipped = torch.cat([-rotated[..., n // 2 :], rotated[..., : n // 2]], -1)
        rotated = rotated * cos + flipped * sin
        return torch.cat([rotated, rest], -1) if rest.shape[-1] else rotated


@dataclass(frozen=True)
class DenseBlock:
    """One block's weights and its computation.

    Attributes:
        norm1: before attention.
        norm2: before the MLP.
        q: to queries; ``k`` and ``v`` likewise to keys and values, ``o`` from ``z`` to the residual stream.
        mlp_in: to ``mlp_pre``; in a gated MLP, the gate's weights.
        mlp_linear: in a gated MLP, the weights of the factor that the gate multiplies.
        mlp_bias: in a gated MLP, added to the product.
        mlp_out: from ``mlp_post`` to the residual stream.
        activation: the MLP's activation function.
        rotary: rotary position embedding, or None.
        scale: multiplies attention scores.
        parallel: whether attention and MLP read the same residual stream.
    """

    norm1: Norm
    norm2: Norm
    q: Affine
    k: Affine
    v: Affine
    o: Affine
    mlp_in: Affine | None
    mlp_linear: Affine | None
    mlp_bias: Tensor | None
    mlp_out: Affine | None
    activation: Callable[[Tensor], Tensor]
    rotary: Rotary | None
    scale: float
    parallel: bool

    def post(self, pre: Tensor, normalized: Tensor, *, out: Tensor | None = None) -> Tensor:
        """``mlp_post`` from ``mlp_pre``, ``[row, d_mlp]``; written into ``out``, which may be ``pre``, by few rows."""
        if out is None:
            return self._post(pre, normalized)
        for first in range(0, len(pre), _ROWS):
            rows = slice(first, first + _ROWS)
            out[rows] = self._post(pre[rows], normalized[rows])
        return out

    def mlp(self, read: Tensor) -> Tensor:
        """``mlp_out`` from the MLP's input, ``[row, d_model]``; its wide activations exist for few rows at a time.

        Zero for blocks without an MLP.
        """
        mlp_in, mlp_out = self.mlp_in, self.mlp_out
        if mlp_in is None or mlp_out is None:
            return torch.zeros_like(read)
        if torch.is_grad_enabled() and read.requires_grad:
            normalized = self.norm2(read)
            return mlp_out(self._post(mlp_in(normalized), normalized))
        size = _MLP_ROWS.get(read.device.type, len(read))
        out = torch.empty_like(read)
        for first in range(0, len(read), max(1, size)):
            rows = slice(first, first + size)
            normalized = self.norm2(read[rows])
            mlp_out(self._post(mlp_in(normalized), normalized), out=out[rows])
        return out

    def _post(self, pre: Tensor, normalized: Tensor) -> Tensor:
        post = self.activation(pre)
        if self.mlp_linear is not None:
            post = post * self.mlp_linear(normalized)
        return post if self.mlp_bias is None else post + self.mlp_bias


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
        """``W_O`` of every head of a layer."""
        return self.blocks[layer].o.weight.view(self.n_heads, self.d_head, -1)

    def by_head(self, values: Tensor, axis: int) -> Tensor:
        """Keys or values repeated along an axis, so that each query head has its own."""
        return values.repeat_interleave(self.n_heads // self.n_kv_heads, axis)


def attend(  # noqa: PLR0913 - what attention takes
    q: Float[Tensor, "row head pos d_head"],
    k: Float[Tensor, "row kv_head key d_head"],
    v: Float[Tensor, "row kv_head key d_head"],
    *,
    prefix: tuple[Float[Tensor, "prompt kv_head before d_head"], Float[Tensor, "prompt kv_head before d_head"]] | None,
    offset: int,
    scores_edit: Callable[[Tensor], Tensor] | None = None,
    pattern_edit: Callable[[Tensor], Tensor] | None = None,
) -> Float[Tensor, "row pos head d_head"]:
    """``z`` of rows; the rows of one prompt share a prefix of keys and values.

    Args:
        q: scaled queries.
        k: the rows' keys behind the prefix, rotated.
        v: the rows' values behind the prefix.
        prefix: keys and values of the positions before, by prompt. Rows alternate: the first row of every prompt, then
            the second row of every prompt, and so on.
        offset: index of the first query among the keys ``k``.
        scores_edit: edits masked scores, ``[row, head, pos, src]``.
        pattern_edit: edits the pattern, ``[row, head, pos, src]``.
    """
    n_rows, n_heads, n_pos, d_head = q.shape
    n_kv, n_keys = k.shape[1], k.shape[2]
    grouped = q.reshape(n_rows, n_kv, n_heads // n_kv * n_pos, d_head)
    scores = (grouped @ k.transpose(-1, -2)).view(n_rows, n_heads, n_pos, n_keys)
    if n_keys > offset + 1:  # some keys follow the first query
        later = torch.ones(n_pos, n_keys, dtype=torch.bool, device=q.device).triu(1 + offset)
        scores = scores.masked_fill(later, -torch.inf)
    n_before = 0
    if prefix is not None and prefix[0].shape[2]:
        n_before = prefix[0].shape[2]
        before = _shared(grouped, prefix[0].transpose(-1, -2))
        scores = torch.cat([before.reshape(n_rows, n_heads, n_pos, n_before), scores], -1)
    if scores_edit is not None:
        scores = scores_edit(scores)
    pattern = scores.softmax(-1)
    if pattern_edit is not None:
        pattern = pattern_edit(pattern)
    z = pattern[..., n_before:].reshape(n_rows, n_kv, -1, n_keys) @ v
    if n_before and prefix is not None:
        z = z + _shared(pattern[..., :n_before].reshape(n_rows, n_kv, -1, n_before), prefix[1])
    return z.view(n_rows, n_heads, n_pos, d_head).transpose(1, 2)


def _shared(
    left: Float[Tensor, "row kv_head many inner"], right: Float[Tensor, "prompt kv_head inner outer"]
) -> Float[Tensor, "row kv_head many outer"]:
    """Each row's matrix times its prompt's; the rows of a prompt in one product, which reads the prompt's once."""
    n_prompts, n_kv, inner, outer = right.shape
    turns = left.unflatten(0, (-1, n_prompts)).permute(1, 2, 0, 3, 4)  # [prompt, kv_head, turn, many, inner]
    product = turns.reshape(n_prompts, n_kv, -1, inner) @ right
    return product.view(*turns.shape[:4], outer).permute(2, 0, 1, 3, 4).flatten(0, 1)
