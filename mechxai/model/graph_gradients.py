"""How a metric changes with what each reader of a model's graph reads; heads' queries, keys and values apart.

No input is split up for it. One backward pass gives the gradients at queries, keys and values; what stands before them,
a norm and a matrix per head, is gone back through by hand.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.site import Site
from mechxai.model.graph_writes import Blocks, Streams, Written, writes_of
from mechxai.model.plain import Affine, Norm, PlainBlock
from mechxai.model.plain_run import run_plain

Score = Callable[[Streams], Tensor]  # the last block's output to a metric per prompt, differentiable


@dataclass(frozen=True)
class Gradients:
    """Gradients of a metric's sum over prompts at what the readers read, and the run they were taken in.

    Attributes:
        attention: by layer, ``[reader, prompt, pos, d_model]``: queries of heads, keys, values.
        mlps: by layer, ``[prompt, pos, d_model]``.
        logits: ``[prompt, pos, d_model]``, before the final norm.
        scores: the metric, ``[prompt]``.
        written: what each writer added in the run; empty unless asked for.
    """

    attention: list[Float[Tensor, "reader prompt pos d_model"]]
    mlps: list[Streams]
    logits: Streams
    scores: Float[Tensor, " prompt"]
    written: Written

    def add(self, other: "Gradients", weight: float) -> None:
        """Adds a share of other gradients to these, in place."""
        for own, more in zip([*self.attention, *self.mlps, self.logits], other.all, strict=True):
            own.add_(more, alpha=weight)

    @property
    def all(self) -> list[Tensor]:
        """Every gradient."""
        return [*self.attention, *self.mlps, self.logits]


def reader_gradients(blocks: Blocks, first: Streams, score: Score, *, written: bool = False) -> Gradients:
    """Gradients at every reader. Cost: one forward and one backward pass.

    What an MLP reads is read by nobody else but the residual stream that goes on past it, so its gradient is the whole
    gradient before it less that behind it (and, in parallel blocks, less that of the heads).

    Args:
        blocks: of the model.
        first: what ``embed`` writes.
        score: the metric, from the last block's output.
        written: whether to keep what the nodes write.
    """
    plain, graph = blocks.plain, blocks.graph
    serial = graph.mlps and not graph.parallel
    names = ["q", "k", "v", *(["resid_mid"] if serial else [])]
    more = ["z", *(["mlp_out"] if graph.mlps else [])] if written else []
    layers = range(graph.n_layers)
    kept: dict[Site, Tensor] = {}
    with torch.enable_grad():
        wanted = {Site(name, layer): None for name in (*names, *more) for layer in layers}
        run = run_plain(plain, first.detach().requires_grad_(), kept.__setitem__, wanted=wanted)
        scores = score(run.residuals[-1])
        at = [Site(name, layer) for name in names for layer in layers]
        found = torch.autograd.grad(scores.sum(), [*(kept[site] for site in at), *run.residuals])
    by_site, streams = dict(zip(at, found, strict=False)), found[len(at) :]
    attention, mlps = [], []
    for layer, block in enumerate(plain.blocks):
        parts = [by_site[Site(name, layer)] for name in "qkv"]
        attention.append(_through_attention(block, run.residuals[layer].detach(), parts))
        if serial:
            mlps.append(by_site[Site("resid_mid", layer)] - streams[layer + 1])
        elif graph.mlps:
            mlps.append(streams[layer] - streams[layer + 1] - attention[layer].sum(0))
    values = writes_of(blocks, first, kept) if written else first.new_empty(0, *first.shape)
    return Gradients(attention, mlps, streams[-1].clone(), scores.detach(), values)


def _through_attention(
    block: PlainBlock, read: Streams, gradients: list[Float[Tensor, "prompt pos _ d_head"]]
) -> Float[Tensor, "reader prompt pos d_model"]:
    """From queries, keys and values back to what each of them read."""
    parts = [
        torch.einsum("bphe,dhe->hbpd", gradient, _by_head(affine, gradient.shape[2]).to(gradient))
        for affine, gradient in zip((block.q, block.k, block.v), gradients, strict=True)
    ]
    return through_norm(block.norm1, read, torch.cat(parts))


def _by_head(affine: Affine, n_parts: int) -> Float[Tensor, "d_model part d_head"]:
    return affine.weight.reshape(affine.weight.shape[0], n_parts, -1)


def through_norm(
    norm: Norm, read: Streams, gradient: Float[Tensor, "*more prompt pos d_model"]
) -> Float[Tensor, "*more prompt pos d_model"]:
    """From what a norm gives back to what it read, for many gradients at one input.

    For LayerNorm ``(g - mean(g) - y mean(g y)) / s`` with ``y`` the normalised input and ``s`` its spread, ``g`` times
    the norm's weight; for RMSNorm the same without the first mean.
    """
    if norm.kind == "none":
        return gradient
    if norm.weight is not None:
        gradient = gradient * norm.weight
    centred = read - read.mean(-1, keepdim=True) if norm.kind == "LN" else read
    spread = (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    y = centred / spread
    found = gradient - y * (gradient * y).mean(-1, keepdim=True)
    if norm.kind == "LN":
        found = found - gradient.mean(-1, keepdim=True)
    return found / spread
