"""A plain run: whole prompts through plain blocks, keeping what is asked.

`run_dense` leaves behind what other rows can go on from. `pass_dense` leaves nothing behind and needs little memory.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.site import Site
from mechxai.core.site_table import SITES
from mechxai.model.backends.prefix import KeysValues
from mechxai.model.dense.blocks import Affine, DenseModel, attend
from mechxai.model.dense.buffers import Buffers

Keep = Callable[[Site, Tensor], None]  # told of every activation, as it comes by
PLAIN_SITES = tuple(name for name, row in SITES.items() if row.dense)


@dataclass(frozen=True)
class Start:
    """Where a run begins, if not with whole prompts before block 0.

    Attributes:
        layer: the first block.
        mid: whether with what its MLP reads, its attention being over.
        before: keys and values of earlier positions, by prompt; rows take turns: the first of every prompt, then the
            second of every prompt, and so on.
    """

    layer: int = 0
    mid: bool = False
    before: KeysValues | None = None


@dataclass(frozen=True)
class DenseRun:
    """What a run leaves behind.

    Attributes:
        residuals: input of every block from the start on (of the first, what was given) and, last, the output of the
            last block, ``[prompt, pos, d_model]``.
        kept: keys (rotated) and values, ``[prompt, kv_head, pos, d_head]``.
    """

    residuals: list[Tensor]
    kept: KeysValues


def run_dense(
    plain: DenseModel,
    residual: Float[Tensor, "prompt pos d_model"],
    keep: Keep,
    *,
    wanted: Collection[Site],
    start: Start = Start(),
) -> DenseRun:
    """Runs prompts from their embedding to the last block's output. Cost: one forward pass without unembedding.

    Args:
        plain: the blocks.
        residual: the residual stream before block 0.
        keep: told of the activations of the wanted sites, each a tensor of its own.
        wanted: whole sites.
        start: where to begin, and after which positions.
    """
    run = DenseRun([residual], KeysValues())
    for layer in range(start.layer, len(plain.blocks)):
        block = _BlockRun(plain, layer, keep, wanted, before=start.before)
        if start.mid and layer == start.layer:
            residual = block.from_middle(residual)
        else:
            residual, keys, values = block(residual)
            run.kept.add(keys, values)
        run.residuals.append(residual)
    return run


def pass_dense(
    plain: DenseModel,
    residual: Float[Tensor, "prompt pos d_model"],
    keep: Keep,
    *,
    wanted: Collection[Site],
    buffers: Buffers | None,
) -> None:
    """Runs prompts as `run_dense` does and holds nothing. ``keep`` ends the pass by raising.

    Args:
        plain: the blocks.
        residual: the residual stream before block 0.
        keep: told of the activations of the wanted sites; what it is given is overwritten once it returns.
        wanted: whole sites.
        buffers: memory to work in; fresh each time when None.
    """
    for layer in range(len(plain.blocks)):
        residual = _BlockRun(plain, layer, keep, wanted, buffers)(residual)[0]


@dataclass(frozen=True)
class _BlockRun:
    """One block on whole prompts."""

    plain: DenseModel
    layer: int
    told: Keep
    wanted: Collection[Site]
    buffers: Buffers | None = None
    before: KeysValues | None = None

    def __call__(self, residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The residual stream after the block; the keys, rotated, and values."""
        n_prompts, n_pos, d_model = residual.shape
        block, shape = self.plain.blocks[self.layer], residual.shape
        self.keep("resid_pre", residual)
        flat = residual.reshape(-1, d_model)
        z, keys, values = self._attention(block.norm1(flat), n_prompts, n_pos)
        attn_out = self._affine("attn_out", block.o, z)
        self.keep("attn_out", attn_out.view(shape))
        after = torch.add(flat, attn_out, out=self._room("after", flat, d_model))
        if block.mlp_in is None or block.mlp_out is None:
            self.keep("resid_post", after.view(shape))
            return after.view(shape), keys, values
        if block.parallel:
            return self._with_mlp(after.view(shape), read=flat), keys, values
        return self.from_middle(after.view(shape)), keys, values

    def from_middle(self, middle: Tensor) -> Tensor:
        """The residual stream after a serial block, from what its MLP reads."""
        middle = self.keep("resid_mid", middle)  # what is kept is what goes on, so that a gradient can be taken there
        return self._with_mlp(middle, read=middle.reshape(-1, middle.shape[-1]))

    def _with_mlp(self, after: Tensor, *, read: Tensor) -> Tensor:
        block, shape = self.plain.blocks[self.layer], after.shape
        if block.mlp_in is None or block.mlp_out is None:
            return after
        normalized = block.norm2(read)
        pre = self._affine("mlp_pre", block.mlp_in, normalized)
        self.keep("mlp_pre", pre.view(*shape[:2], -1))
        post = block.post(pre, normalized, out=None if self.buffers is None else pre)
        self.keep("mlp_post", post.view(*shape[:2], -1))
        mlp_out = self._affine("mlp_out", block.mlp_out, post)
        self.keep("mlp_out", mlp_out.view(shape))
        flat = after.reshape(-1, shape[-1])
        after = torch.add(flat, mlp_out, out=self._room("resid_post", flat, shape[-1])).view(shape)
        self.keep("resid_post", after)
        return after

    def _attention(self, normalized: Tensor, n_prompts: int, n_pos: int) -> tuple[Tensor, Tensor, Tensor]:
        """``z``, ``[prompt * pos, head * d_head]``; keys, rotated, and values, ``[prompt, kv_head, pos, d_head]``."""
        plain, block = self.plain, self.plain.blocks[self.layer]
        by_head = (n_prompts, n_pos, -1, plain.d_head)
        parts = (("q", block.q), ("k", block.k), ("v", block.v))
        q, k, v = (self._affine(name, part, normalized).view(by_head) for name, part in parts)
        for name, part in (("q", q), ("k", k), ("v", v)):
            self.keep(name, part)
        prefix = None if self.before is None else (self.before.keys[self.layer], self.before.values[self.layer])
        if block.rotary is not None:
            first = 0 if prefix is None else prefix[0].shape[2]
            q, k = block.rotary(q, first), block.rotary(k, first)
        q, keys, values = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if prefix is not None or any(
            "src_pos" in site.row.axes for site in self.wanted
        ):  # in all layers alike, or in none
            z = attend(
                q * block.scale,
                keys,
                values,
                prefix=prefix,
                offset=0,
                scores_edit=lambda scores: self.keep("attn_scores", scores),
                pattern_edit=lambda pattern: self.keep("pattern", pattern),
            )
        else:
            z = torch.nn.functional.scaled_dot_product_attention(
                q, keys, values, is_causal=True, scale=block.scale, enable_gqa=q.shape[1] != keys.shape[1]
            ).transpose(1, 2)
        self.keep("z", z)
        if Site("result", self.layer) in self.wanted:
            by_source = block.o.weight.view(plain.n_heads, plain.d_head, -1)
            self.keep("result", torch.einsum("bphe,hed->bphd", z, by_source))
        return z.reshape(n_prompts * n_pos, -1), keys, values

    def keep(self, name: str, value: Tensor) -> Tensor:
        """Tells of an activation that is wanted; gives it back."""
        site = Site(name, self.layer)
        if site in self.wanted:
            self.told(site, value)
        return value

    def _affine(self, name: str, affine: Affine, x: Tensor) -> Tensor:
        return affine(x, out=self._room(name, x, affine.weight.shape[1]))

    def _room(self, name: str, like: Tensor, width: int) -> Tensor | None:
        return None if self.buffers is None else self.buffers(name, like, width)
