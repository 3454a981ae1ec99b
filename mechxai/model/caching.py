"""Activations kept as a forward pass comes by them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mechxai.core.site import POSITION_AXES, Site
from mechxai.model.hooking import HookFunction


class AllCached(Exception):  # noqa: N818 - not an error: it ends a forward pass whose rest nobody wants
    """Every wanted activation has been kept."""


@dataclass(frozen=True)
class Keeper:
    """Keeps the activations of some sites as a forward pass comes by them.

    Attributes:
        sites: whole sites; the pass is ended with `AllCached` once all have been seen.
        kept: positions to keep; all when None.
        dtype: to store in.
        device: to store on.
        values: what has been kept so far.
    """

    sites: Sequence[Site]
    kept: tuple[int, ...] | None
    dtype: torch.dtype
    device: torch.device
    values: dict[Site, Tensor] = field(default_factory=dict)

    def hooks(self) -> Mapping[str, list[HookFunction]]:
        """A function for each hook point."""
        return {site.hook: [self._keeping(site)] for site in self.sites}

    def _keeping(self, site: Site) -> HookFunction:
        def function(activation: Tensor) -> None:
            part = activation.detach()
            if self.kept is not None:
                axis = 1 + next(at for at, name in enumerate(site.row.axes) if name in POSITION_AXES)
                part = part.index_select(axis, torch.tensor(self.kept, device=part.device))
            self.values[site] = part.to(device=self.device, dtype=self.dtype, copy=True)
            if len(self.values) == len(self.sites):
                raise AllCached

        return function
