"""The vectors that every node of a model's graph writes into the residual stream."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.errors import ModelSupportError
from mechxai.core.graph import Graph
from mechxai.core.shapes import Tokens
from mechxai.core.site import Site
from mechxai.model.backends.limits import check_tokens
from mechxai.model.backends.passes import residuals_before
from mechxai.model.backends.prefix import KeysValues
from mechxai.model.dense.blocks import DenseModel
from mechxai.model.dense.check import equivalence_check
from mechxai.model.dense.run import Start, run_dense
from mechxai.model.hooked_model import HookedModel

Streams = Float[Tensor, "prompt pos d_model"]
Written = Float[Tensor, "writer prompt pos d_model"]


@dataclass(frozen=True)
class Blocks:
    """A model's blocks and their graph.

    Attributes:
        dense: the blocks as plain tensors.
        graph: nodes and edges.
    """

    dense: DenseModel
    graph: Graph

    def heads_of(self, layer: int) -> slice:
        """The heads of a layer among the writers."""
        first = self.graph.n_before_attention(layer)
        return slice(first, first + self.graph.n_heads)

    def normed_layers(self) -> list[int]:
        """The layers with a norm after attention, whose heads do not add to the residual stream one by one."""
        return [layer for layer, block in enumerate(self.dense.blocks) if not block.post1.is_identity]

    def added(self, layer: int, heads: Tensor) -> Tensor:
        """What a layer's heads add to the residual stream, from the sum of their outputs, ``[..., d_model]``."""
        block = self.dense.blocks[layer]
        bias = block.attention.o.bias
        return block.post1(heads if bias is None else heads + bias)


def graph_blocks(model: HookedModel, n_pos: int = 0) -> Blocks:
    """The dense blocks and the graph of a model.

    Args:
        model: the model.
        n_pos: length of the longest prompt.

    Raises:
        ModelSupportError: dense blocks do not give the model's own activations; says why.
    """
    check = equivalence_check(model.backend)
    dense = check.dense
    if dense is None or not check.covers(n_pos):
        reason = check.reason if dense is None else f"its blocks are tested up to {dense.longest} tokens, not {n_pos}"
        raise ModelSupportError(
            f"{model.name} ({model.architecture.family}) has no graph of edges: {reason}",
            fix="Patch nodes instead (mx.ActivationPatching), which any model supports"
            if dense is None
            else "Shorten the prompts",
        )
    return Blocks(dense, Graph.of(model.architecture))


def embedded(model: HookedModel, tokens: Tokens) -> Streams:
    """The write of ``embed``: token and position, as the first block reads them. Cost: the embedding of the tokens."""
    check_tokens(tokens, model.architecture, model.name)
    with torch.no_grad():
        return residuals_before(model, tokens.to(model.device), {})


@dataclass(frozen=True)
class Writes:
    """The writes and residual streams of a run.

    Attributes:
        values: the vector that each writer adds, ``[writer, prompt, pos, d_model]``; of a head with a norm behind its
            attention, the vector that enters the norm.
        residuals: input of every block and, last, the output of the last block.
        middles: the input of each MLP.
        kept: rotated keys, and values, of all positions.
    """

    values: Written
    residuals: list[Streams]
    middles: list[Streams]
    kept: KeysValues

    def later(self, first: int) -> "Writes":
        """The same from position ``first`` on."""
        residuals, middles = ([stream[:, first:] for stream in streams] for streams in (self.residuals, self.middles))
        return Writes(self.values[:, :, first:], residuals, middles, self.kept)


def writes(blocks: Blocks, first: Streams, *, before: KeysValues | None = None) -> Writes:
    """Runs prompts and stores what every node writes. Cost: one forward pass without unembedding.

    Args:
        blocks: of the model.
        first: the write of ``embed``.
        before: keys and values of earlier positions, if ``first`` begins at a later one.
    """
    graph = blocks.graph
    names = ["z", *(["mlp_out"] if graph.mlps else [])]
    names += ["resid_mid"] if graph.mlps and not graph.parallel else []
    activations: dict[Site, Tensor] = {}
    with torch.no_grad():
        wanted = {Site(name, layer): None for name in names for layer in range(graph.n_layers)}
        run = run_dense(blocks.dense, first, activations.__setitem__, wanted=wanted, start=Start(before=before))
    middles = [activations[site] for site in wanted if site.name == "resid_mid"]
    return Writes(writes_of(blocks, first, activations), run.residuals, middles or run.residuals[:-1], run.kept)


def writes_of(blocks: Blocks, first: Streams, activations: Mapping[Site, Tensor]) -> Written:
    """The write of every node of a run, from its embedding and its stored ``z`` and ``mlp_out``."""
    dense, graph = blocks.dense, blocks.graph
    values = first.new_empty(len(graph.writers), *first.shape)
    values[0] = first.detach()
    with torch.no_grad():
        for layer in range(graph.n_layers):
            heads = blocks.heads_of(layer)
            z = activations[Site("z", layer)].detach().flatten(0, 1).transpose(0, 1)  # [head, prompt * pos, d_head]
            torch.bmm(z, dense.heads_out(layer), out=values[heads].flatten(1, 2))
            if graph.mlps:
                values[heads.stop] = activations[Site("mlp_out", layer)].detach()
    return values


def moves(blocks: Blocks, base: Written, other: Written) -> Written:
    """What each writer adds to the residual stream when its output alone becomes another, minus what it added.

    Behind a norm (OLMo 2, Gemma 2) the norm responds to the new output beside those of the other heads, as it does when
    the head's ``z`` is patched.

    Args:
        blocks: of the model.
        base: the writers' outputs, ``[writer, prompt, pos, d_model]``.
        other: likewise.
    """
    change = other - base
    for layer in blocks.normed_layers():
        heads = blocks.heads_of(layer)
        together = base[heads].sum(0)
        change[heads] = blocks.added(layer, together + change[heads]) - blocks.added(layer, together)
    return change


def joint_move(blocks: Blocks, base: Written, other: Written, *, writers: slice) -> Streams:
    """What some writers of one place add when all their outputs become others, minus what they added."""
    first = writers.start
    for layer in blocks.normed_layers():
        if blocks.heads_of(layer).start == first:
            new, old = (blocks.added(layer, outputs[writers].sum(0)) for outputs in (other, base))
            return new - old
    return (other[writers] - base[writers]).sum(0)
