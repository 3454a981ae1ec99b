"""Activations and the gradients of a metric with respect to them, at any sites of any model."""

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


def site_gradients(  # noqa: PLR0913 - a run, a metric and sites
    model: HookedModel,
    tokens: Tokens,
    *,
    lengths: PromptInts,
    sites: Sequence[Site],
    at: Int[Tensor, "batch k"] | None,
    score: Callable[[Tensor], Tensor],
    stopped: Sequence[Site] = (),
) -> tuple[dict[Site, Tensor], dict[Site, Tensor]]:
    """Activations at whole sites, and the gradients of a metric's sum over prompts with respect to them.

    Args:
        model: the model.
        tokens: ``[batch, pos]``.
        lengths: real tokens per row.
        sites: whole sites.
        at: positions that the metric reads; all when None.
        score: from the input of the unembedding, ``[batch, k, d_model]``, to the metric, ``[batch]``.
        stopped: sites at which gradients stop.

    Raises:
        SiteError, ModelSupportError: a site that the model does not have.

    Cost: one forward pass without the unembedding, and one backward.
    """
    check_tokens(tokens, model.architecture, model.name)
    activations: dict[Site, Tensor] = {}
    final: list[Tensor] = []

    def start(embedded: Tensor) -> Tensor:
        return embedded.detach().requires_grad_()

    def stop(residual: Tensor) -> None:
        final.append(residual if at is None else gathered(residual, at))
        raise AllCached

    def storing(site: Site) -> Hooks:
        def copied(activation: Tensor) -> Tensor:
            activations[site] = activation.clone()  # returned: some hook points receive a copy that is not used further
            return activations[site]

        return {site.hook: [copied]}

    ends: Hooks = {site.hook: [torch.Tensor.detach] for site in stopped}
    tables: list[Hooks] = [{_EMBED.hook: [start]}, *map(storing, sites), ends, {UNEMBED_HOOK: [stop]}]
    tokens = tokens.to(model.device)
    with frozen(model.backend), torch.enable_grad():
        with model.attached(tables, [*sites, *stopped]), suppress(AllCached):
            model.backend.run(tokens, row_mask(tokens, lengths))
        at_sites = [activations[site] for site in sites]
        gradients_or_none = torch.autograd.grad(score(final[0]).sum(), at_sites, allow_unused=bool(stopped))
    cut_off = {site.layer for site in stopped}  # a site that feeds only a stopped one has no gradient
    gradients = {
        site: torch.zeros_like(activations[site]) if gradient is None and site.layer in cut_off else gradient
        for site, gradient in zip(sites, gradients_or_none, strict=True)
    }
    if any(gradient is None for gradient in gradients.values()):
        raise RuntimeError(f"no gradient reaches {[str(site) for site in sites if gradients[site] is None]}")
    return {site: activations[site].detach() for site in sites}, gradients
