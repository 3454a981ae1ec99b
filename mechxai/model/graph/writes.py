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
from mechxai.model.dense.lookup import dense_model_of
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


def graph_blocks(model: HookedModel) -> Blocks:
    """The dense blocks and the graph of a model whose residual stream is the sum of its nodes' writes.

    Raises:
        ModelSupportError: the residual stream is not that sum (post-norm blocks), or dense blocks do not cover the
            model.
    """
    dense = dense_model_of(model)
    if dense is None or not model.architecture.causal:
        raise ModelSupportError(
            f"{model.name} ({model.architecture.family}) has no graph of edges",
            allowed="causal pre-norm blocks: LayerNorm or RMSNorm, grouped-query or not, serial or parallel",
            fix="Patch nodes instead (mx.ActivationPatching), which any model supports",
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
        values: the vector that each writer adds, ``[writer, prompt, pos, d_model]``.
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
        for layer, block in enumerate(dense.blocks):
            at = graph.n_before_attention(layer)
            out = block.o.weight.view(dense.n_heads, dense.d_head, -1)
            z = activations[Site("z", layer)].detach().flatten(0, 1).transpose(0, 1)  # [head, prompt * pos, d_head]
            torch.bmm(z, out, out=values[at : at + graph.n_heads].flatten(1, 2))
            if graph.mlps:
                values[at + graph.n_heads] = activations[Site("mlp_out", layer)].detach()
    return values
