"""A plain run: whole prompts through plain blocks, keeping what is asked; and the proof that the blocks are the model's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.site import Site
from mechxai.model.plain import PlainBlock, PlainModel, attend
from mechxai.model.prefix import KeysValues

Keep = Callable[[Site, Tensor], None]  # told of every activation, as it comes by
PLAIN_SITES = (
    "resid_pre",
    "resid_mid",
    "resid_post",
    "attn_out",
    "mlp_out",
    "q",
    "k",
    "v",
    "z",
    "result",
    "attn_scores",
    "pattern",
    "mlp_pre",
    "mlp_post",
)


@dataclass(frozen=True)
class PlainRun:
    """What a run leaves behind.

    Attributes:
        residuals: input of every block and, last, the output of the last block, ``[prompt, pos, d_model]``.
        kept: keys (rotated) and values, ``[prompt, kv_head, pos, d_head]``.
    """

    residuals: Sequence[Tensor]
    kept: KeysValues


def run_plain(
    plain: PlainModel, residual: Float[Tensor, "prompt pos d_model"], keep: Keep, *, wanted: Mapping[Site, object]
) -> PlainRun:
    """Runs prompts from their embedding to the last block's output. Cost: one forward pass without unembedding.

    Args:
        plain: the blocks.
        residual: the residual stream before block 0.
        keep: told of the activations of the wanted sites.
        wanted: whole sites.
    """
    residuals, kept = [residual], KeysValues()
    for layer, block in enumerate(plain.blocks):
        run = _BlockRun(plain, block, layer, keep, wanted)
        residual = run(residual)
        kept.add(run.keys, run.values)
        residuals.append(residual)
    return PlainRun(residuals, kept)


class _BlockRun:
    """One block on whole prompts."""

    def __init__(
        self, plain: PlainModel, block: PlainBlock, layer: int, keep: Keep, wanted: Mapping[Site, object]
    ) -> None:
        self.plain, self.block, self.layer = plain, block, layer
        self._keep, self._wanted = keep, wanted

    def __call__(self, residual: Tensor) -> Tensor:
        n_prompts, n_pos, d_model = residual.shape
        block, shape = self.block, residual.shape
        self.keep("resid_pre", residual)
        flat = residual.reshape(-1, d_model)
        z = self._attention(block.norm1(flat), n_prompts, n_pos)
        attn_out = block.o(z)
        self.keep("attn_out", attn_out.view(shape))
        after = flat + attn_out
        if block.mlp_in is None or block.mlp_out is None:
            self.keep("resid_post", after.view(shape))
            return after.view(shape)
        if not block.parallel:
            self.keep("resid_mid", after.view(shape))
        normalized = block.norm2(flat if block.parallel else after)
        pre = block.mlp_in(normalized)
        self.keep("mlp_pre", pre.view(n_prompts, n_pos, -1))
        post = block.post(pre, normalized)
        self.keep("mlp_post", post.view(n_prompts, n_pos, -1))
        mlp_out = block.mlp_out(post)
        self.keep("mlp_out", mlp_out.view(shape))
        after = (after + mlp_out).view(shape)
        self.keep("resid_post", after)
        return after

    def _attention(self, normalized: Tensor, n_prompts: int, n_pos: int) -> Tensor:
        """``z``, ``[prompt * pos, head * d_head]``."""
        plain, block = self.plain, self.block
        by_head = (n_prompts, n_pos, -1, plain.d_head)
        q, k, v = (part(normalized).view(by_head) for part in (block.q, block.k, block.v))
        for name, part in (("q", q), ("k", k), ("v", v)):
            self.keep(name, part)
        if block.rotary is not None:
            q, k = block.rotary(q, 0), block.rotary(k, 0)
        q, self.keys, self.values = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if self._wants("attn_scores", "pattern"):
            z = attend(
                q * block.scale,
                self.keys,
                self.values,
                prefix=None,
                offset=0,
                scores_edit=lambda scores: self.keep("attn_scores", scores),
                pattern_edit=lambda pattern: self.keep("pattern", pattern),
            )
        else:
            z = torch.nn.functional.scaled_dot_product_attention(
                q, self.keys, self.values, is_causal=True, scale=block.scale, enable_gqa=q.shape[1] != k.shape[2]
            ).transpose(1, 2)
        self.keep("z", z)
        if self._wants("result"):
            by_source = block.o.weight.view(plain.n_heads, plain.d_head, -1)
            self.keep("result", torch.einsum("bphe,hed->bphd", z, by_source))
        return z.reshape(n_prompts * n_pos, -1)

    def keep(self, name: str, value: Tensor) -> Tensor:
        """Tells of an activation that is wanted; gives it back."""
        site = Site(name, self.layer)
        if site in self._wanted:
            self._keep(site, value)
        return value

    def _wants(self, *names: str) -> bool:
        return any(Site(name, self.layer) in self._wanted for name in names)
