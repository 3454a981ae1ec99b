"""Sites where an edit does nothing or ends in an exception: TransformerLens shows a copy, or fails."""

import warnings
from collections.abc import Collection, Sequence
from functools import partial

import torch
from torch import Tensor

from mechxai.core.errors import ModelSupportError
from mechxai.core.shapes import RowLogits
from mechxai.core.site import Site
from mechxai.model.backends.attach import Hooks, attached
from mechxai.model.backends.base import Backend

_COPY = "TransformerLens shows a copy there, and edits have no effect on the model"
_NO_EFFECT = 1e-3  # of the largest logit; a smaller effect is left to the gradient


class EditCheck:
    """Refuses sites of one model that cannot be edited; each name of a site is measured at its first edit."""

    def __init__(self) -> None:
        self._faults: dict[str, dict[Site, str]] = {}

    def __call__(self, backend: Backend, site: Site, silent: Collection[str] = ()) -> None:
        """Refuses ``site`` where an edit has no effect or fails; ``silent`` are hooks that no pass runs through.

        Raises:
            ModelSupportError: with what TransformerLens does there.
        """
        if site.name not in self._faults:
            layers = range(backend.architecture().n_layers) if site.row.has_layer else (None,)
            sites = [each for each in (Site(site.name, layer) for layer in layers) if each.hook in backend.hooks]
            self._faults[site.name] = edit_faults(backend, [each for each in sites if each.hook not in silent])
        reason = self._faults[site.name].get(Site(site.name, site.layer))
        if reason is not None:
            raise ModelSupportError(
                f"{site} cannot be edited on {backend.architecture().family}: {reason}",
                fix="Use resid_pre, attn_out, mlp_out, q, k, v or z",
            )


def edit_faults(backend: Backend, sites: Sequence[Site]) -> dict[Site, str]:
    """The sites that cannot be edited, each with its reason.

    A copy is where an edit changes no logit and the gradient of the logits does not reach the edited value; behind
    weights of zero it is zero, but it does. Cost: one forward pass over two tokens in one row per site, and where an
    edit changes nothing a second one with its backward pass.
    """
    shapes: dict[Site, list[int]] = {}
    try:
        without_effect = _without_effect(backend, sites, shapes)
        copies = frozenset(without_effect) - _connected(backend, without_effect)
    except Exception as error:  # noqa: BLE001 - TransformerLens raises anything
        if len(sites) > 1:
            return {site: reason for each in sites for site, reason in edit_faults(backend, [each]).items()}
        return {site: f"TransformerLens stops with {type(error).__name__}: {error}" for site in sites}
    unlike = {
        site: f"its activation has the shape {shape}, not [batch, {', '.join(site.row.axes)}]"
        for site, shape in shapes.items()
        if len(shape) != 1 + len(site.row.axes)
    }
    return dict.fromkeys(copies, _COPY) | unlike


def _without_effect(backend: Backend, sites: Sequence[Site], shapes: dict[Site, list[int]]) -> list[Site]:
    """The sites whose edit leaves the logits as they are: row 0 has no edit, the others one each; fills ``shapes``."""
    n_rows = len(sites) + 1

    def disturb(activation: Tensor, row: int) -> Tensor:
        shapes[sites[row - 1]] = list(activation.shape)
        if activation.shape[0] != n_rows:  # an activation shared by the rows
            return _disturbed(activation, row)
        edited = activation.clone()
        edited[row] = _disturbed(activation[row], row)
        return edited

    functions: Hooks = {site.hook: [partial(disturb, row=row)] for row, site in enumerate(sites, start=1)}
    with torch.no_grad(), attached(backend, (functions,), sites), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TransformerLens 4 warns of some copies
        logits = _run(backend, n_rows).float()
    effects = (logits[1:] - logits[:1]).abs().flatten(1).amax(1)
    allowed = _NO_EFFECT * float(logits[0].abs().max())
    return [site for site, effect in zip(sites, effects.tolist(), strict=True) if effect <= allowed]


def _disturbed(activation: Tensor, seed: int) -> Tensor:
    """The activation plus noise of its typical size; masked scores (the lowest number, or minus infinity) stay."""
    noise = torch.randn(activation.shape, generator=torch.Generator().manual_seed(seed)).to(activation)
    return activation + (1 + activation.abs().median()) * noise


def _connected(backend: Backend, sites: Sequence[Site]) -> set[Site]:
    """The sites whose returned value the logits depend on, by automatic differentiation."""
    if not sites:
        return set()
    offsets: list[tuple[Site, Tensor]] = []

    def offset(activation: Tensor, site: Site) -> Tensor:
        zeros = torch.zeros_like(activation, requires_grad=True)
        offsets.append((site, zeros))
        return activation + zeros

    functions: Hooks = {site.hook: [partial(offset, site=site)] for site in sites}
    with torch.enable_grad(), attached(backend, (functions,), sites), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logits = _run(backend, 1)
        if not logits.requires_grad:
            return set()
        gradients = torch.autograd.grad(logits.float().sum(), [zeros for _, zeros in offsets], allow_unused=True)
    return {site for (site, _), gradient in zip(offsets, gradients, strict=True) if gradient is not None}


def _run(backend: Backend, n_rows: int) -> RowLogits:
    device = next(iter(backend.inner.parameters())).device
    return backend.run(torch.tensor([[0, 1]] * n_rows, device=device), None)
