"""A transformer as plain tensors: blocks over views of the model's own weights, without modules or hooks.

One block class for the common kind: a norm before attention and before the MLP, LayerNorm or RMSNorm, as many key/value
heads as heads or fewer, learned or rotary positions, plain or gated MLP, serial or parallel. What it does not cover is
not guessed at: `plain_model` gives None, and whoever asked uses the model's modules instead.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Vectors = Float[Tensor, "row d_model"]
_ROWS = 128  # few enough for a processor's cache
_MLP_ROWS = {"cpu": 512}  # through an MLP at a time: enough for products of matrices; elsewhere all


@dataclass(frozen=True)
class Affine:
    """``x @ weight + bias``.

    Attributes:
        weight: ``[n_in, n_out]``, of any strides; a view of the model's own.
        bias: ``[n_out]`` or None.
    """

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor, *, out: Tensor | None = None) -> Tensor:
        """``[row, n_in]`` to ``[row, n_out]``, into ``out`` where it is given."""
        if self.bias is None:
            return torch.matmul(x, self.weight, out=out)
        return torch.addmm(self.bias, x, self.weight, out=out)


@dataclass(frozen=True)
class Norm:
    """LayerNorm, RMSNorm or nothing, with the library's own kernels.

    Attributes:
        kind: ``LN``, ``RMS`` or ``none``.
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
        adjacent: pairs are neighbours (GPT-J) rather than halves (NeoX, Llama).
    """

    table: Callable[[int], tuple[Tensor, Tensor]]
    adjacent: bool

    def __call__(self, x: Float[Tensor, "row pos head d_head"], start: int) -> Float[Tensor, "row pos head d_head"]:
        """Queries or keys of positions from ``start`` on, rotated."""
        stop = start + x.shape[1]
        cos, sin = (part[start:stop, None].to(x.dtype) for part in self.table(stop))
        n = cos.shape[-1]
        turned, rest = x[..., :n], x[..., n:]
        if self.adjacent:
            flipped = torch.stack([-turned[..., 1::2], turned[..., ::2]], -1).flatten(-2)
        else:
            flipped = torch.cat([-turned[..., n // 2 :], turned[..., : n // 2]], -1)
        turned = turned * cos + flipped * sin
        return torch.cat([turned, rest], -1) if rest.shape[-1] else turned


@dataclass(frozen=True)
class DenseBlock:
    """One block's weights and what they do.

    Attributes:
        mlp_in: to ``mlp_pre``; of a gated MLP, the gate's.
        mlp_linear: of a gated MLP, what the gate is multiplied with.
        mlp_bias: of a gated MLP, added to the product.
        scale: what scores are multiplied by.
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
        """``mlp_post`` from ``mlp_pre``, ``[row, d_mlp]``; into ``out``, which may be ``pre``, a few rows at a time."""
        if out is None:
            return self._post(pre, normalized)
        for first in range(0, len(pre), _ROWS):
            rows = slice(first, first + _ROWS)
            out[rows] = self._post(pre[rows], normalized[rows])
        return out

    def mlp(self, read: Tensor) -> Tensor:
        """``mlp_out`` of what the MLP reads, ``[row, d_model]``, its wide activations never held for all rows.

        Blocks without an MLP have none to call.
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
    """All blocks; the final norm.

    Attributes:
        blocks: in order.
        final: the norm before the unembedding.
        d_head: size of a head.
        longest: positions up to which the blocks are the model's, where that is not all.
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
        """Keys or values with one for every head along an axis, where groups of heads share them."""
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
    """``z`` of rows, of which those of one prompt share the keys and values before their own.

    Args:
        q: scaled queries.
        k: the rows' own keys, rotated.
        v: their values.
        prefix: keys and values of the positions before them, by prompt; rows take turns: the first of every prompt,
            then the second of every prompt, and so on.
        offset: place of the first query among the rows' own keys.
        scores_edit: makes edits in masked scores, ``[row, head, pos, src]``.
        pattern_edit: makes edits in the pattern, likewise.
    """
    n_rows, n_heads, n_pos, d_head = q.shape
    n_kv, n_keys = k.shape[1], k.shape[2]
    grouped = q.reshape(n_rows, n_kv, n_heads // n_kv * n_pos, d_head)
    scores = (grouped @ k.transpose(-1, -2)).view(n_rows, n_heads, n_pos, n_keys)
    if n_keys > offset + 1:  # some key lies after the first query
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
    own = pattern[..., n_before:].reshape(n_rows, n_kv, -1, n_keys) @ v
    if n_before and prefix is not None:
        own = own + _shared(pattern[..., :n_before].reshape(n_rows, n_kv, -1, n_before), prefix[1])
    return own.view(n_rows, n_heads, n_pos, d_head).transpose(1, 2)


def _shared(
    left: Float[Tensor, "row kv_head many inner"], right: Float[Tensor, "prompt kv_head inner outer"]
) -> Float[Tensor, "row kv_head many outer"]:
    """Each row's matrix times its prompt's; the rows of a prompt as one, so that the prompt's is read once."""
    n_prompts, n_kv, inner, outer = right.shape
    turns = left.unflatten(0, (-1, n_prompts)).permute(1, 2, 0, 3, 4)  # [prompt, kv_head, turn, many, inner]
    product = turns.reshape(n_prompts, n_kv, -1, inner) @ right
    return product.view(*turns.shape[:4], outer).permute(2, 0, 1, 3, 4).flatten(0, 1)
