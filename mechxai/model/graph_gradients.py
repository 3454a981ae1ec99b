"""How a metric changes with what each reader of a model's graph reads; heads' queries, keys and values apart.

No input is split up for it. One backward pass gives the gradients at queries, keys and values; what stands before them,
a norm and a matrix per head, is gone back through by hand.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.graph import Graph
from mechxai.core.site import Site
from mechxai.model.graph_writes import Blocks, Streams
from mechxai.model.plain import Affine, Norm, PlainBlock
from mechxai.model.plain_run import run_plain

Score = Callable[[Streams], Tensor]  # the last block's output to a metric per prompt, differentiable


@dataclass(frozen=True)
class Gradients:
    """Gradients of a metric's sum over prompts at what the readers read.

    Attributes:
        attention: by layer, ``[reader, prompt, pos, d_model]``: queries of heads, keys, values.
        mlps: by layer, ``[prompt, pos, d_model]``.
        logits: ``[prompt, pos, d_model]``, before the final norm.
        scores: the metric, ``[prompt]``.
    """

    attention: list[Float[Tensor, "reader prompt pos d_model"]]
    mlps: list[Streams]
    logits: Streams
    scores: Float[Tensor, " prompt"]


def reader_gradients(blocks: Blocks, first: Streams, score: Score) -> Gradients:
    """Gradients at every reader. Cost: one forward and one backward pass, and the MLPs' once more.

    Args:
        blocks: of the model.
        first: what ``embed`` writes.
        score: the metric, from the last block's output.
    """
    plain, graph = blocks.plain, blocks.graph
    names = ["q", "k", "v", *(["resid_mid"] if _has_middles(graph) else [])]
    wanted = {Site(name, layer): None for name in names for layer in range(graph.n_layers)}
    kept: dict[Site, Tensor] = {}
    with torch.enable_grad():
        run = run_plain(plain, first.detach().requires_grad_(), kept.__setitem__, wanted=wanted)
        scores = score(run.residuals[-1])
        at = [site for site in wanted if site.name != "resid_mid"]
        found = torch.autograd.grad(scores.sum(), [*(kept[site] for site in at), *run.residuals[1:]])
    by_site, after = dict(zip(at, found, strict=False)), found[len(at) :]  # behind a block: what its MLP adds to
    attention, mlps = [], []
    for layer, block in enumerate(plain.blocks):
        read = run.residuals[layer].detach()
        attention.append(_through_attention(block, read, [by_site[Site(name, layer)] for name in "qkv"]))
        if graph.mlps:
            middle = kept[Site("resid_mid", layer)].detach() if _has_middles(graph) else read
            mlps.append(_through_mlp(block, middle, after[layer]))
    return Gradients(attention, mlps, after[-1], scores.detach())


def _has_middles(graph: Graph) -> bool:
    return graph.mlps and not graph.parallel


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


def _through_mlp(block: PlainBlock, read: Streams, gradient: Streams) -> Streams:
    """From an MLP's output back to what it read."""
    mlp_in, mlp_out = block.mlp_in, block.mlp_out
    if mlp_in is None or mlp_out is None:
        return torch.zeros_like(read)
    with torch.enable_grad():
        leaf = read.flatten(0, 1).detach().requires_grad_()
        normalized = block.norm2(leaf)
        written = mlp_out(block.post(mlp_in(normalized), normalized))
        (found,) = torch.autograd.grad(written, leaf, gradient.flatten(0, 1))
    return found.view_as(read)


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
