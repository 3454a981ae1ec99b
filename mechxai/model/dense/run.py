"""Runs of whole prompts through dense blocks.

`run_dense` keeps what other rows can start from. `pass_dense` keeps nothing and needs little memory.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.site import Site
from mechxai.core.site_table import SITES
from mechxai.model.backends.prefix import KeysValues
from mechxai.model.dense.attention import attend
from mechxai.model.dense.blocks import DenseModel
from mechxai.model.dense.buffers import Buffers
from mechxai.model.dense.parts import Affine, NeuronMlp

Keep = Callable[[Site, Tensor], None]  # receives each activation as it is computed
DENSE_SITES = tuple(name for name, row in SITES.items() if row.dense)


@dataclass(frozen=True)
class Start:
    """The start of a run, if not with whole prompts before block 0.

    Attributes:
        layer: the first block.
        mid: whether the run starts at the input of that block's MLP, behind its attention.
        before: keys and values of earlier positions, by prompt. Rows alternate: the first row of every prompt, then the
            second row of every prompt, and so on.
    """

    layer: int = 0
    mid: bool = False
    before: KeysValues | None = None


@dataclass(frozen=True)
class DenseRun:
    """Residual streams, keys and values of a run.

    Attributes:
        residuals: input of every block from the start on and, last, the output of the last block,
            ``[prompt, pos, d_model]``.
        kept: keys, as scores read them, and values, ``[prompt, kv_head, pos, d_head]``.
    """

    residuals: list[Tensor]
    kept: KeysValues


def run_dense(
    dense: DenseModel,
    residual: Float[Tensor, "prompt pos d_model"],
    keep: Keep,
    *,
    wanted: Collection[Site],
    start: Start = Start(),
) -> DenseRun:
    """Runs prompts from their embedding to the last block's output. Cost: one forward pass without unembedding.

    Args:
        dense: the blocks.
        residual: the residual stream before block 0.
        keep: receives the activations of the wanted sites, each a new tensor.
        wanted: whole sites.
        start: the first layer, and keys and values of earlier positions.
    """
    run = DenseRun([residual], KeysValues())
    for layer in range(start.layer, len(dense.blocks)):
        block = _BlockRun(dense, layer, keep, wanted, before=start.before)
        if start.mid and layer == start.layer:
            residual = block.from_middle(residual)
        else:
            residual, keys, values = block(residual)
            run.kept.add(keys, values)
        run.residuals.append(residual)
    return run


def pass_dense(
    dense: DenseModel,
    residual: Float[Tensor, "prompt pos d_model"],
    keep: Keep,
    *,
    wanted: Collection[Site],
    buffers: Buffers | None,
) -> None:
    """Runs prompts as `run_dense` does and keeps nothing. ``keep`` ends the pass with an exception.

    Args:
        dense: the blocks.
        residual: the residual stream before block 0.
        keep: receives the activations of the wanted sites; their memory is overwritten once it returns.
        wanted: whole sites.
        buffers: memory to work in; newly allocated each time when None.
    """
    for layer in range(len(dense.blocks)):
        residual = _BlockRun(dense, layer, keep, wanted, buffers)(residual)[0]


@dataclass(frozen=True)
class _BlockRun:
    """One block on whole prompts."""

    dense: DenseModel
    layer: int
    store: Keep
    wanted: Collection[Site]
    buffers: Buffers | None = None
    before: KeysValues | None = None

    def __call__(self, residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The residual stream after the block, the keys as scores read them, and the values."""
        n_prompts, n_pos, d_model = residual.shape
        block, shape = self.dense.blocks[self.layer], residual.shape
        self.keep("resid_pre", residual)
        flat = residual.reshape(-1, d_model)
        z, keys, values = self._attention(block.norm1(flat), n_prompts, n_pos)
        attn_out = block.attn_out(z, out=self._buffer("attn_out", z, d_model))
        self.keep("attn_out", attn_out.view(shape))
        after = torch.add(flat, attn_out, out=self._buffer("after", flat, d_model))
        if block.mlp is None:
            self.keep("resid_post", after.view(shape))
            return after.view(shape), keys, values
        if block.parallel:
            return self._with_mlp(after.view(shape), read=flat), keys, values
        return self.from_middle(after.view(shape)), keys, values

    def from_middle(self, middle: Tensor) -> Tensor:
        """The residual stream after a serial block, from the input of its MLP."""
        middle = self.keep("resid_mid", middle)  # the stored tensor is the one used, so that it can have a gradient
        return self._with_mlp(middle, read=middle.reshape(-1, middle.shape[-1]))

    def _with_mlp(self, after: Tensor, *, read: Tensor) -> Tensor:
        block, shape = self.dense.blocks[self.layer], after.shape
        if block.mlp is None:
            return after
        mlp_out = self._neurons(block.mlp, read, shape) if isinstance(block.mlp, NeuronMlp) else block.mlp_out(read)
        self.keep("mlp_out", mlp_out.view(shape))
        flat = after.reshape(-1, shape[-1])
        resid_post = self._buffer("resid_post", flat, shape[-1])
        after = torch.add(flat, mlp_out, out=resid_post).view(shape)
        self.keep("resid_post", after)
        return after

    def _neurons(self, mlp: NeuronMlp, read: Tensor, shape: torch.Size) -> Tensor:
        """``mlp_out`` with its neurons' activations passed on."""
        block = self.dense.blocks[self.layer]
        normalized = block.norm2(read)
        pre = self._affine("mlp_pre", mlp.first, normalized)
        self.keep("mlp_pre", pre.view(*shape[:2], -1))
        post = mlp.post(pre, normalized, out=None if self.buffers is None else pre)
        self.keep("mlp_post", post.view(*shape[:2], -1))
        return block.post2(self._affine("mlp_out", mlp.out, post))

    def _attention(self, normalized: Tensor, n_prompts: int, n_pos: int) -> tuple[Tensor, Tensor, Tensor]:
        """``z``, ``[prompt * pos, head * d_head]``; keys and values, ``[prompt, kv_head, pos, d_head]``."""
        dense, attention = self.dense, self.dense.blocks[self.layer].attention
        by_head = (n_prompts, n_pos, -1, dense.d_head)
        parts = (("q", attention.q), ("k", attention.k), ("v", attention.v))
        q, k, v = (self._affine(name, part, normalized).view(by_head) for name, part in parts)
        for name, part in (("q", q), ("k", k), ("v", v)):
            self.keep(name, part)
        prefix = None if self.before is None else (self.before.keys[self.layer], self.before.values[self.layer])
        first = 0 if prefix is None else prefix[0].shape[2]
        q, k, v = attention.queries(q, first), attention.keys(k, first), attention.values(v)
        q, keys, values = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        needs_scores = any("src_pos" in site.row.axes for site in self.wanted)  # in all layers alike, or in none
        if prefix is not None or needs_scores or not attention.rule.is_plain:
            z = attend(
                q,
                keys,
                values,
                rule=attention.rule,
                prefix=prefix,
                scores_edit=lambda scores: self.keep("attn_scores", scores),
                pattern_edit=lambda pattern: self.keep("pattern", pattern),
            )
        else:
            z = attention.whole(q, keys, values)
        self.keep("z", z)
        if Site("result", self.layer) in self.wanted:
            self.keep("result", torch.einsum("bphe,hed->bphd", z, dense.heads_out(self.layer)))
        return z.reshape(n_prompts * n_pos, -1), keys, values

    def keep(self, name: str, value: Tensor) -> Tensor:
        """Passes an activation on if its site is wanted; returns it."""
        site = Site(name, self.layer)
        if site in self.wanted:
            self.store(site, value)
        return value

    def _affine(self, name: str, affine: Affine, x: Tensor) -> Tensor:
        return affine(x, out=self._buffer(name, x, affine.weight.shape[1]))

    def _buffer(self, name: str, like: Tensor, width: int) -> Tensor | None:
        return None if self.buffers is None else self.buffers(name, like, width)
