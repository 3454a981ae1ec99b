"""What every node of a model's graph writes into the residual stream, and the model's plain blocks it is read from."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.errors import ModelSupportError
from mechxai.core.graph import Graph
from mechxai.core.shapes import Tokens
from mechxai.core.site import Site
from mechxai.model.hooked_model import HookedModel
from mechxai.model.limits import check_tokens
from mechxai.model.passes import residuals_before
from mechxai.model.plain import PlainModel
from mechxai.model.plain_door import plain_of
from mechxai.model.plain_run import run_plain

Streams = Float[Tensor, "prompt pos d_model"]
Written = Float[Tensor, "writer prompt pos d_model"]


@dataclass(frozen=True)
class Blocks:
    """A model's blocks as plain tensors, and their graph."""

    plain: PlainModel
    graph: Graph


def graph_blocks(model: HookedModel) -> Blocks:
    """The blocks of a model whose residual stream is the sum of what its nodes write, with its graph.

    Raises:
        ModelSupportError: it is not that sum (post-norm blocks), or the blocks are of a kind that is not known.
    """
    plain = plain_of(model)
    if plain is None or not model.architecture.causal:
        raise ModelSupportError(
            f"The graph of {model.name} was asked",
            got=f"{model.architecture.family}, whose blocks are not known to add what their nodes write",
            allowed="causal pre-norm blocks: LayerNorm or RMSNorm, grouped-query or not, serial or parallel",
            fix="patch nodes instead (mx.ActivationPatching), which any model takes",
        )
    return Blocks(plain, Graph.of(model.architecture))


def embedded(model: HookedModel, tokens: Tokens) -> Streams:
    """What ``embed`` writes: token and position, as the first block reads them. Cost: the embedding of the tokens."""
    check_tokens(tokens, model.architecture, model.name)
    with torch.no_grad():
        return residuals_before(model, tokens.to(model.device), {})


@dataclass(frozen=True)
class Writes:
    """A run, taken apart.

    Attributes:
        values: what each writer adds, ``[writer, prompt, pos, d_model]``.
        residuals: input of every block and, last, the output of the last.
        middles: what each MLP reads.
    """

    values: Written
    residuals: list[Streams]
    middles: list[Streams]


def writes(blocks: Blocks, first: Streams) -> Writes:
    """Runs prompts and keeps what every node writes. Cost: one forward pass without unembedding.

    Args:
        blocks: of the model.
        first: what ``embed`` writes.
    """
    graph = blocks.graph
    values = first.new_empty(len(graph.writers), *first.shape)
    values[0] = first
    names = [
        "result",
        *(["mlp_out"] if graph.mlps else []),
        *(["resid_mid"] if graph.mlps and not graph.parallel else []),
    ]
    wanted = {Site(name, layer): None for name in names for layer in range(graph.n_layers)}
    middles: list[Streams] = []

    def keep(site: Site, value: Tensor) -> None:
        at = graph.n_before_attention(site.layer or 0)
        if site.name == "result":
            values[at : at + graph.n_heads] = value.permute(2, 0, 1, 3)
        elif site.name == "mlp_out":
            values[at + graph.n_heads] = value
        else:
            middles.append(value)

    with torch.no_grad():
        run = run_plain(blocks.plain, first, keep, wanted=wanted)
    return Writes(values, run.residuals, middles or run.residuals[:-1])
