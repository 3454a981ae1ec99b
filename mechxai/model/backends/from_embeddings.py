"""Runs from token embeddings instead of token ids, for attribution methods that differentiate or replace them."""

from contextlib import suppress

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechxai.core.shapes import PromptInts, Tokens
from mechxai.core.site import Site
from mechxai.model.backends.attach import row_mask
from mechxai.model.backends.base import UNEMBED_HOOK
from mechxai.model.backends.capture import AllCached
from mechxai.model.backends.hooks import gathered
from mechxai.model.backends.limits import check_tokens
from mechxai.model.backends.passes import residuals_before
from mechxai.model.hooked_model import HookedModel

_EMBED = Site("embed")
_TOKENS_AT_ONCE = 8192


def token_embeddings(model: HookedModel, tokens: Tokens) -> Float[Tensor, "batch pos d_model"]:
    """The embedding of each token (``hook_embed``), scaled as the model scales it, without positions.

    Cost: the embedding of the tokens.
    """
    check_tokens(tokens, model.architecture, model.name)
    activations: dict[Site, Tensor] = {}
    residuals_before(model, tokens.to(model.device), {}, keep={_EMBED: activations})
    return activations[_EMBED]


def mean_embedding(model: HookedModel) -> Float[Tensor, " d_model"]:
    """The mean of `token_embeddings` over the whole vocabulary."""
    total = torch.zeros(model.architecture.d_model, dtype=torch.float64)
    vocabulary = torch.arange(model.architecture.d_vocab)
    for ids in vocabulary.split(_TOKENS_AT_ONCE):
        total += token_embeddings(model, ids[:, None])[:, 0].double().sum(0).cpu()
    return (total / len(vocabulary)).to(model.device, model.dtype)


def final_streams(
    model: HookedModel,
    tokens: Tokens,
    embeddings: Float[Tensor, "batch width d_model"],
    *,
    where: Bool[Tensor, "batch width"],
    lengths: PromptInts,
    at: Int[Tensor, "batch k"] | None,
) -> Float[Tensor, "batch k d_model"]:
    """The input of the unembedding with token embeddings replaced at some positions; differentiable in them.

    Args:
        model: the model; its parameters take gradients unless they are frozen.
        tokens: ``[batch, pos]``, as many positions as ``embeddings`` or more.
        embeddings: the new embeddings; those at padding are not used.
        where: the positions to replace.
        lengths: real tokens per row.
        at: positions wanted, ``[batch, k]``; all when None.

    Cost: one forward pass without the unembedding.
    """
    check_tokens(tokens, model.architecture, model.name)
    width, final = embeddings.shape[1], list[Tensor]()

    def replace(embedded: Tensor) -> Tensor:
        new = torch.where(where[..., None], embeddings.to(embedded), embedded[:, :width])
        return new if embedded.shape[1] == width else torch.cat([new, embedded[:, width:]], 1)

    def stop(residual: Tensor) -> None:
        final.append(residual if at is None else gathered(residual, at))
        raise AllCached

    hooks = ({_EMBED.hook: [replace]}, {UNEMBED_HOOK: [stop]})
    tokens = tokens.to(model.device)
    with model.attached(hooks), suppress(AllCached):
        model.backend.run(tokens, row_mask(tokens, lengths))
    return final[0]
