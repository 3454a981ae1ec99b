"""A model run from token embeddings instead of tokens: what attribution differentiates and replaces."""

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
_WORDS_AT_ONCE = 8192


def token_embeddings(model: HookedModel, tokens: Tokens) -> Float[Tensor, "batch pos d_model"]:
    """What stands at ``hook_embed``: the embedding of each token, scaled as the model scales it, without positions.

    Cost: the embedding of the tokens.
    """
    check_tokens(tokens, model.architecture, model.name)
    found: dict[Site, Tensor] = {}
    residuals_before(model, tokens.to(model.device), {}, keep={_EMBED: found})
    return found[_EMBED]


def mean_embedding(model: HookedModel) -> Float[Tensor, " d_model"]:
    """The mean of `token_embeddings` over the whole vocabulary."""
    total = torch.zeros(model.architecture.d_model, dtype=torch.float64)
    every = torch.arange(model.architecture.d_vocab)
    for words in every.split(_WORDS_AT_ONCE):
        total += token_embeddings(model, words[:, None])[:, 0].double().sum(0).cpu()
    return (total / len(every)).to(model.device, model.dtype)


def final_streams(
    model: HookedModel,
    tokens: Tokens,
    given: Float[Tensor, "batch width d_model"],
    *,
    where: Bool[Tensor, "batch width"],
    lengths: PromptInts,
    at: Int[Tensor, "batch k"] | None,
) -> Float[Tensor, "batch k d_model"]:
    """The input of the unembedding when embeddings of one's own stand at some positions; differentiable in them.

    Args:
        model: the model; its parameters take gradients unless they are frozen.
        tokens: ``[batch, pos]``, as many positions as ``given`` or more.
        given: embeddings; those of padding are not used.
        where: the positions at which they stand.
        lengths: real tokens per row.
        at: positions wanted, ``[batch, k]``; all when None.

    Cost: one forward pass without the unembedding.
    """
    check_tokens(tokens, model.architecture, model.name)
    width, final = given.shape[1], list[Tensor]()

    def put(embedded: Tensor) -> Tensor:
        new = torch.where(where[..., None], given.to(embedded), embedded[:, :width])
        return new if embedded.shape[1] == width else torch.cat([new, embedded[:, width:]], 1)

    def ending(residual: Tensor) -> None:
        final.append(residual if at is None else gathered(residual, at))
        raise AllCached

    hooks = ({_EMBED.hook: [put]}, {UNEMBED_HOOK: [ending]})
    tokens = tokens.to(model.device)
    with model.attached(hooks), suppress(AllCached):
        model.backend.run(tokens, row_mask(tokens, lengths))
    return final[0]
