"""Activations kept as a forward pass comes by them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mechxai.core.site import POSITION_AXES, Site
from mechxai.model.backends.hooks import HookFunction


class AllCached(Exception):  # noqa: N818 - not an error: it ends a forward pass whose rest nobody wants
    """Every wanted activation has been kept."""


@dataclass(eq=False)
class Keeper:
    """Keeps the activations of some sites as forward passes over parts of a batch come by them.

    All layers of a site are written into one tensor, ``[layer, batch, ...]``, made when its first activation is seen.

    Attributes:
        sites: whole sites; a pass is ended with `AllCached` once all have been seen in it.
        kept: positions to keep; all when None.
        dtype: to store in.
        device: to store on.
        n_prompts: rows of the whole batch.
        values: what has been kept so far, each layer a view of its site's tensor.
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
        """The next pass runs these rows of the batch."""
        self._rows = rows
        self._seen.clear()

    def hooks(self, sites: Sequence[Site]) -> Mapping[str, list[HookFunction]]:
        """A function for the hook point of each of these sites."""
        return {site.hook: [self._keeping(site)] for site in sites}

    def keep(self, site: Site, activation: Tensor) -> None:
        """Takes what is wanted of an activation into its place.

        Raises:
            AllCached: nothing is missing any more.
        """
        part = activation.detach()
        if self.kept is not None:
            axis = 1 + next(at for at, name in enumerate(site.row.axes) if name in POSITION_AXES)
            part = part.index_select(axis, torch.tensor(self.kept, device=part.device))
        self._place(site, part.shape[1:])[self._rows] = part
        self._seen.add(site)
        if len(self._seen) == len(self.sites):
            raise AllCached

    def _keeping(self, site: Site) -> HookFunction:
        return lambda activation: self.keep(site, activation)

    def _place(self, site: Site, shape: torch.Size) -> Tensor:
        """Where the activation of a site goes, ``[batch, ...]``."""
        if site not in self.values:
            layers = sorted((one for one in self.sites if one.name == site.name), key=lambda one: one.layer or 0)
            self.values.update(zip(layers, self._empty(len(layers), shape), strict=True))
        if self.values[site].shape[1:] != shape:  # a layer may have other sizes than the first
            self.values[site] = self._empty(1, shape)[0]
        return self.values[site]

    def _empty(self, n_layers: int, shape: torch.Size) -> Tensor:
        return torch.empty(n_layers, self.n_prompts, *shape, dtype=self.dtype, device=self.device)
