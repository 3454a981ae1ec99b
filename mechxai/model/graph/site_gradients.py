"""Activations of a run and the gradients of a metric at them, at any sites of any model, from one backward pass."""

from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
from jaxtyping import Int
from torch import Tensor

from mechxai.core.shapes import PromptInts, Tokens
from mechxai.core.site import Site
from mechxai.model.backends.attach import Hooks, row_mask
from mechxai.model.backends.base import UNEMBED_HOOK, frozen
from mechxai.model.backends.capture import AllCached
from mechxai.model.backends.hooks import gathered
from mechxai.model.backends.limits import check_tokens
from mechxai.model.hooked_model import HookedModel

_EMBED = Site("embed")


def site_gradients(  # noqa: PLR0913 - what a gradient takes
    model: HookedModel,
    tokens: Tokens,
    *,
    lengths: PromptInts,
    sites: Sequence[Site],
    at: Int[Tensor, "batch k"] | None,
    score: Callable[[Tensor], Tensor],
    stopped: Sequence[Site] = (),
) -> tuple[dict[Site, Tensor], dict[Site, Tensor]]:
    """Activations at whole sites, and there the gradient of a metric's sum over prompts.

    Args:
        model: the model.
        tokens: ``[batch, pos]``.
        lengths: real tokens per row.
        sites: whole sites.
        at: positions that the metric reads.
        score: from the input of the unembedding, ``[batch, k, d_model]``, to the metric, ``[batch]``.
        stopped: sites that no gradient goes back through.

    Raises:
        SiteError, ModelSupportError: a site the model does not have.

    Cost: one forward pass without the unembedding, and one backward.
    """
    check_tokens(tokens, model.architecture, model.name)
    kept: dict[Site, Tensor] = {}
    final: list[Tensor] = []

    def start(embedded: Tensor) -> Tensor:
        return embedded.detach().requires_grad_()

    def ending(residual: Tensor) -> None:
        final.append(residual if at is None else gathered(residual, at))
        raise AllCached

    def keeping(site: Site) -> Hooks:
        def through(activation: Tensor) -> Tensor:
            kept[site] = activation.clone()  # put back, as some hook points are given a copy that leads nowhere
            return kept[site]

        return {site.hook: [through]}

    ends: Hooks = {site.hook: [torch.Tensor.detach] for site in stopped}
    tables: list[Hooks] = [{_EMBED.hook: [start]}, *map(keeping, sites), ends, {UNEMBED_HOOK: [ending]}]
    tokens = tokens.to(model.device)
    with frozen(model.backend), torch.enable_grad():
        with model.attached(tables, [*sites, *stopped]), suppress(AllCached):
            model.backend.run(tokens, row_mask(tokens, lengths))
        at_sites = [kept[site] for site in sites]
        found = torch.autograd.grad(score(final[0]).sum(), at_sites, allow_unused=bool(stopped))
    cut_off = {site.layer for site in stopped}  # what feeds nothing but a site that is stopped has no gradient
    gradients = {
        site: torch.zeros_like(kept[site]) if gradient is None and site.layer in cut_off else gradient
        for site, gradient in zip(sites, found, strict=True)
    }
    if any(gradient is None for gradient in gradients.values()):
        raise RuntimeError(f"no gradient reaches {[str(site) for site in sites if gradients[site] is None]}")
    return {site: kept[site].detach() for site in sites}, gradients
