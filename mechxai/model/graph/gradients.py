"""Gradients of a metric at the input of each reader of a model's graph, with queries, keys and values apart.

The model's inputs are not split. One backward pass gives the gradients at queries, keys and values; the norm and the
head's matrix before them are differentiated by hand.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.site import Site
from mechxai.model.dense.blocks import DenseBlock
from mechxai.model.dense.parts import Affine, Norm
from mechxai.model.dense.run import Start, run_dense
from mechxai.model.graph.writes import Blocks, Streams, Written, writes_of

Score = Callable[[Streams], Tensor]  # from the last block's output to a metric per prompt, differentiable


@dataclass(frozen=True)
class ReaderGradients:
    """Gradients at readers that see the same writers.

    Attributes:
        rows: the readers' indices in ``graph.readers``.
        seen: the number of writers they see, which are the first ones.
        values: ``[reader, prompt, pos, d_model]``.
    """

    rows: slice
    seen: int
    values: Float[Tensor, "reader prompt pos d_model"]


@dataclass(frozen=True)
class Gradients:
    """Gradients of a metric's sum over prompts at the readers' inputs, with the metric of their runs.

    Attributes:
        readers: of every reader after the start, in the order of ``graph.readers``.
        scores: the metric, ``[turn, prompt]``.
        written: turn -> the write of every node, for the chosen turns.
    """

    readers: list[ReaderGradients]
    scores: Float[Tensor, "turn prompt"]
    written: dict[int, Written]

    def add(self, other: "Gradients") -> None:
        """Adds other gradients to these, in place."""
        for reader, more in zip(self.readers, other.readers, strict=True):
            reader.values.add_(more.values)


def reader_gradients(
    blocks: Blocks,
    residual: Streams,
    score: Score,
    *,
    start: Start = Start(),  # noqa: B008 - frozen
    weights: Sequence[float] = (1.0,),
    written: Sequence[int] = (),
) -> Gradients:
    """Gradients at every reader, summed over runs of the same prompts. Cost: one forward and one backward pass per run.

    The residual stream before an MLP feeds only the MLP and the stream behind it, so the MLP's gradient is the gradient
    before it minus that behind it (and, in parallel blocks, minus that of the heads).

    Args:
        blocks: of the model.
        residual: the residual stream at the start, of the first run of every prompt, then the second, and so on.
        score: the metric of all rows, from the last block's output.
        start: the start of the runs.
        weights: of the turns: the first run of every prompt, the second, and so on.
        written: turns whose writes are stored; for runs from the embedding only.
    """
    dense, graph, turns = blocks.dense, blocks.graph, len(weights)
    serial = graph.mlps and not graph.parallel
    activations: dict[Site, Tensor] = {}
    at = [Site(name, layer) for name in "qkv" for layer in range(start.layer + start.mid, graph.n_layers)]
    at += [Site("resid_mid", layer) for layer in range(start.layer, graph.n_layers)] if serial else []
    more = [Site(name, layer) for name in ("z", "mlp_out") for layer in range(graph.n_layers)] if written else []
    with torch.enable_grad():
        wanted = dict.fromkeys([*at, *more])
        run = run_dense(dense, residual.detach().requires_grad_(), activations.__setitem__, wanted=wanted, start=start)
        scores = score(run.residuals[-1])
        gradients = torch.autograd.grad(scores.sum(), [*(activations[site] for site in at), *run.residuals])
    back = _Backward(blocks, start, dict(zip(at, gradients, strict=False)), gradients[len(at) :], weights)
    scores = scores.detach().view(turns, -1)
    parts = {turn: _turn(blocks, residual, activations, rows=_rows(turn, scores.shape[1])) for turn in written}
    return Gradients(back.readers([stream.detach() for stream in run.residuals]), scores, parts)


def _rows(turn: int, n_prompts: int) -> slice:
    return slice(turn * n_prompts, (turn + 1) * n_prompts)


def _turn(
    blocks: Blocks, residual: Streams, activations: Mapping[Site, Tensor], *, rows: slice
) -> Float[Tensor, "writer of_turn pos d_model"]:
    return writes_of(
        blocks, residual[rows], {site: activations[site][rows] for site in activations if site.name in ("z", "mlp_out")}
    )


@dataclass(frozen=True)
class _Backward:
    """Gradients at queries, keys, values, MLP inputs and residual streams, to be carried back to the readers."""

    blocks: Blocks
    start: Start
    by_site: Mapping[Site, Tensor]
    streams: Sequence[Streams]
    weights: Sequence[float]

    def readers(self, residuals: Sequence[Streams]) -> list[ReaderGradients]:
        """The gradients of all readers, layer by layer."""
        graph, first = self.blocks.graph, self.start.layer
        readers: list[ReaderGradients] = []
        for layer in range(first, graph.n_layers):
            before, after = self.streams[layer - first], self.streams[layer - first + 1]
            row, n = graph.first_reader(layer), graph.n_before_attention(layer)
            n_attention = len(graph.attention_readers(layer))
            attention = None
            if not (self.start.mid and layer == first):
                parts = [self.by_site[Site(name, layer)] for name in "qkv"]
                attention = _through_attention(self.blocks.dense.blocks[layer], residuals[layer - first], parts)
                readers.append(self._readers(row, n, attention))
            if graph.mlps:
                middle = before if graph.parallel else self.by_site[Site("resid_mid", layer)]
                at_mlp = middle - after
                if graph.parallel and attention is not None:
                    at_mlp = at_mlp - attention.sum(0)
                readers.append(self._readers(row + n_attention, graph.n_before_mlp(layer), at_mlp[None]))
        readers.append(self._readers(len(graph.readers) - 1, len(graph.writers), self.streams[-1][None]))
        return readers

    def _readers(self, row: int, seen: int, gradient: Float[Tensor, "reader row pos d_model"]) -> ReaderGradients:
        """A gradient summed over turns."""
        turns = gradient.unflatten(1, (len(self.weights), -1))
        values = turns[:, 0] * self.weights[0]
        for turn, weight in enumerate(self.weights[1:], 1):
            values.add_(turns[:, turn], alpha=weight)
        return ReaderGradients(slice(row, row + len(values)), seen, values)


def _through_attention(
    block: DenseBlock, read: Streams, gradients: list[Float[Tensor, "prompt pos _ d_head"]]
) -> Float[Tensor, "reader prompt pos d_model"]:
    """Carries gradients from queries, keys and values back to the input of each."""
    attention = block.attention
    parts = (attention.q, attention.k, attention.v)
    carried = [
        torch.einsum("bphe,dhe->hbpd", gradient, _by_head(affine, gradient.shape[2]).to(gradient))
        for affine, gradient in zip(parts, gradients, strict=True)
    ]
    return through_norm(block.norm1, read, torch.cat(carried))


def _by_head(affine: Affine, n_parts: int) -> Float[Tensor, "d_model part d_head"]:
    return affine.weight.reshape(affine.weight.shape[0], n_parts, -1)


def through_norm(
    norm: Norm, read: Streams, gradient: Float[Tensor, "*more prompt pos d_model"]
) -> Float[Tensor, "*more prompt pos d_model"]:
    """Carries gradients from a norm's output back to its input, many gradients at one input.

    For LayerNorm ``(g - mean(g) - y mean(g y)) / s``, with ``y`` the normalised input, ``s`` its standard deviation and
    ``g`` the gradient times the norm's weight; for RMSNorm the same without the first mean.
    """
    if norm.kind == "none":
        return gradient
    if norm.weight is not None:
        gradient = gradient * norm.weight
    centred = read - read.mean(-1, keepdim=True) if norm.kind == "LN" else read
    spread = (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    y = centred / spread
    projected = gradient - y * (gradient * y).mean(-1, keepdim=True)
    if norm.kind == "LN":
        projected = projected - gradient.mean(-1, keepdim=True)
    return projected / spread
