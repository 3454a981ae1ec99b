"""Runs from token embeddings instead of token ids, for attribution methods that differentiate or replace them."""

import weakref
from contextlib import suppress
from typing import Any

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
_N_COMPARED = 4  # tokens
_SAME = 1e-4  # largest relative difference of equal passes


def token_embeddings(model: HookedModel, tokens: Tokens) -> Float[Tensor, "batch pos d_model"]:
    """The embedding of each token (``hook_embed``), scaled as the model scales it, without positions.

    Cost: the embedding of the tokens.
    """
    check_tokens(tokens, model.architecture, model.name)
    activations: dict[Site, Tensor] = {}
    residuals_before(model, tokens.to(model.device), {}, keep={_EMBED: activations})
    return activations[_EMBED]


def mean_embedding(model: HookedModel) -> Float[Tensor, " d_embed"]:
    """The mean of `token_embeddings` over the whole vocabulary."""
    vocabulary = torch.arange(model.architecture.d_vocab)
    parts = vocabulary.split(_TOKENS_AT_ONCE)
    sums = [token_embeddings(model, ids[:, None])[:, 0].double().sum(0).cpu() for ids in parts]
    return (torch.stack(sums).sum(0) / len(vocabulary)).to(model.device, model.dtype)


_reading_later: "weakref.WeakKeyDictionary[Any, bool]" = weakref.WeakKeyDictionary()


def reads_tokens_later(model: HookedModel) -> bool:
    """Whether later layers read the token ids too (Gemma 3n, Gemma 4), so that embeddings alone do not replace tokens.

    Measured once per model: the same embeddings over two rows of token ids.

    Cost: two forward passes of a few tokens the first time, for a bridge.
    """
    if model.backend.name != "bridge":  # a HookedTransformer embeds tokens once
        return False
    if model.inner not in _reading_later:
        ids = model.text.plain_ids(model.architecture.d_vocab)
        some = ids[torch.linspace(0, len(ids) - 1, 2 * _N_COMPARED).long()].to(model.device)
        rows = some.view(2, _N_COMPARED)
        embeddings = token_embeddings(model, rows[:1])
        where = torch.ones(1, _N_COMPARED, dtype=torch.bool, device=model.device)
        lengths = torch.tensor([_N_COMPARED], device=model.device)
        with torch.no_grad():
            same, other = (
                final_streams(model, row[None], embeddings, where=where, lengths=lengths, at=None).double()
                for row in rows
            )
        difference = float((same - other).abs().max() / same.abs().max().clamp(min=1e-30))
        _reading_later[model.inner] = difference > _SAME
    return _reading_later[model.inner]


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
