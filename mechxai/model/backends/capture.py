"""Activations stored during a forward pass, and gradients with respect to them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mechxai.core.errors import ShapeError
from mechxai.core.site import POSITION_AXES, Site
from mechxai.model.backends.base import Backend, frozen
from mechxai.model.backends.hooks import HookFunction

_EMBED = Site("embed")


class AllCached(Exception):  # noqa: N818 - not an error: it ends a forward pass whose rest is not needed
    """Every wanted activation is stored."""


@dataclass(eq=False)
class Keeper:
    """Stores the activations of chosen sites while forward passes run over parts of a batch.

    All layers of a site are written into one tensor, ``[layer, batch, ...]``, allocated at its first activation.

    Attributes:
        sites: whole sites; a pass ends with `AllCached` once it has seen all of them.
        kept: positions to store; all when None.
        dtype: to store in.
        device: to store on.
        n_prompts: rows of the whole batch.
        values: the activations stored so far, each layer a view of its site's tensor.
    """

    sites: Sequence[Site]
    kept: tuple[int, ...] | None
    dtype: torch.dtype
    device: torch.device
    n_prompts: int
    values: dict[Site, Tensor] = field(default_factory=dict)
    _rows: slice = field(default_factory=lambda: slice(None), init=False)
    _seen: set[Site] = field(default_factory=set, init=False)

    def begin(self, rows: slice) -> None:
        """Starts a pass over these rows of the batch."""
        self._rows = rows
        self._seen.clear()

    def hooks(self, sites: Sequence[Site]) -> Mapping[str, list[HookFunction]]:
        """A storing function for the hook point of each site."""
        return {site.hook: [self._storing(site)] for site in sites}

    def keep(self, site: Site, activation: Tensor) -> None:
        """Stores the chosen positions of an activation.

        Raises:
            AllCached: this was the last site of the pass.
        """
        part = activation.detach()
        if self.kept is not None:
            axis = 1 + next(at for at, name in enumerate(site.row.axes) if name in POSITION_AXES)
            part = part.index_select(axis, torch.tensor(self.kept, device=part.device))
        self._target(site, part.shape[1:])[self._rows] = part
        self._seen.add(site)
        if len(self._seen) == len(self.sites):
            raise AllCached

    def _storing(self, site: Site) -> HookFunction:
        return lambda activation: self.keep(site, activation)

    def _target(self, site: Site, shape: torch.Size) -> Tensor:
        """The tensor that a site's activation is written into, ``[batch, ...]``."""
        if site not in self.values:
            layers = sorted((other for other in self.sites if other.name == site.name), key=lambda of: of.layer or 0)
            self.values.update(zip(layers, self._empty(len(layers), shape), strict=True))
        if self.values[site].shape[1:] != shape:  # a layer may have other sizes than the first
            self.values[site] = self._empty(1, shape)[0]
        return self.values[site]

    def _empty(self, n_layers: int, shape: torch.Size) -> Tensor:
        return torch.empty(n_layers, self.n_prompts, *shape, dtype=self.dtype, device=self.device)


def _scalar(score: object) -> Tensor:
    """The score, refused where no gradient of it can be taken."""
    if not isinstance(score, Tensor) or score.numel() != 1 or not score.requires_grad:
        got = f"a tensor of shape {list(score.shape)}" if isinstance(score, Tensor) else f"a {type(score).__name__}"
        without = " without a gradient" if isinstance(score, Tensor) and score.numel() == 1 else ""
        raise ShapeError(
            f"The score is {got}{without}: it must be one number, computed from the logits with torch operations"
        )
    return score


def gradients_at(
    backend: Backend, sites: Sequence[Site], run: Callable[[Mapping[str, Sequence[HookFunction]]], Tensor]
) -> tuple[dict[Site, Tensor], dict[Site, Tensor]]:
    """Activations at whole sites, and the gradients of a score with respect to them.

    Args:
        backend: the model.
        sites: where gradients are wanted.
        run: a forward pass with these hooks, to a scalar score.

    Raises:
        SiteError: a site that the model does not have.

    Cost: one forward and one backward pass; parameters get no gradient.
    """
    for site in sites:
        backend.check(site.whole)
    values: dict[Site, Tensor] = {}

    def root(activation: Tensor) -> Tensor:
        return activation if activation.requires_grad else activation.detach().requires_grad_()

    def storing(site: Site) -> HookFunction:
        def function(activation: Tensor) -> Tensor:
            values[site.whole] = root(activation)
            return values[site.whole]

        return function

    # a site that only an edit in place reaches must stay the tensor it is, so gradients begin at the embedding there
    in_place = any(site.name in backend.in_place for site in sites)
    hooks: dict[str, list[HookFunction]] = {_EMBED.hook: [root]} if in_place else {}
    for site in sites:
        hooks.setdefault(site.hook, []).append(storing(site))
    with frozen(backend), torch.enable_grad():
        gradients = torch.autograd.grad(_scalar(run(hooks)), list(values.values()))
    return {site: value.detach() for site, value in values.items()}, dict(zip(values, gradients, strict=True))
