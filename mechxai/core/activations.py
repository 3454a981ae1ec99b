"""Activations taken from a run: a mapping from site to tensor that knows which position is which."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mechxai.core.batch import Layout
from mechxai.core.errors import SiteError
from mechxai.core.shapes import Rows
from mechxai.core.site import POSITION_AXES, Site
from mechxai.core.site_table import site_name


@dataclass(frozen=True)
class Activations:
    """What a model computed at chosen sites.

    ``acts["z", 3]`` is the activation of a whole layer, ``[batch, pos, head, d_head]``; ``acts[Site.parse("...")]`` the
    part a site names; ``acts.stack("resid_post")`` all cached layers, ``[layer, batch, pos, d_model]``.

    Attributes:
        values: whole site -> activation, leading axis ``batch``.
        layout: lengths and roles of the prompts.
        kept: the positions that were kept, if not all; site positions are then looked up among them.
    """

    values: Mapping[Site, Tensor]
    layout: Layout
    kept: tuple[int, ...] | None = field(default=None)

    def __getitem__(self, key: "str | Site | tuple[str, int]") -> Tensor:
        site = key if isinstance(key, Site) else Site(key) if isinstance(key, str) else Site(*key)
        if site.whole not in self.values:
            have = ", ".join(str(found) for found in self.values) or "nothing"
            raise SiteError(f"{site.whole} was asked of cached activations", got="it was not cached", allowed=have)
        whole = self.values[site.whole]
        if site == site.whole:
            return whole
        positions = None if site.pos is None else self._stored(site)
        return whole[site.index(positions, len(whole))]

    def __contains__(self, key: object) -> bool:
        return key in self.values

    def __iter__(self) -> Iterator[Site]:
        return iter(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def layers(self, name: str) -> list[int]:
        """The layers of a site that were cached, ascending."""
        row = site_name(name)
        return sorted(site.layer for site in self.values if site.name == row.name and site.layer is not None)

    def stack(self, name: str) -> Tensor:
        """All cached layers of a site, ``[layer, batch, ...]``; no copy where they lie together in memory."""
        layers = [self[name, layer] for layer in self.layers(name)]
        together = _together(layers)
        return torch.stack(layers) if together is None else together

    def rows(self, chosen: Rows) -> "Activations":
        """The activations of some prompts."""
        return Activations(
            {site: value[chosen] for site, value in self.values.items()}, self.layout.rows(chosen), self.kept
        )

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(value.element_size() * value.nelement() for value in self.values.values())

    def _stored(self, site: Site) -> Tensor:
        at, _ = self.layout.positions(site.pos if site.pos is not None else 0)
        axis = 1 + next(place for place, name in enumerate(site.row.axes) if name in POSITION_AXES)
        width = self.values[site.whole].shape[axis] if self.kept is None else max(self.kept) + 1
        if isinstance(site.pos, int) and not -width <= site.pos < width:
            raise SiteError(f"{site} was asked of cached activations", got=f"rows of {width} positions")
        if self.kept is None:
            return at
        lookup = {position: place for place, position in enumerate(self.kept)}
        missing = sorted({int(position) for position in at} - set(lookup))
        if missing:
            raise SiteError(
                f"{site} was asked of cached activations", got=f"position {missing[0]} was not kept", allowed=self.kept
            )
        return torch.tensor([lookup[int(position)] for position in at], device=at.device)


def _together(layers: list[Tensor]) -> Tensor | None:
    """The tensor of which equally long steps lead from each layer to the next; None where there is none."""
    if len(layers) < 2 or any(layer.requires_grad for layer in layers):
        return None
    first, starts = layers[0], [layer.storage_offset() for layer in layers]
    step = starts[1] - starts[0]
    if step < 0 or starts != [starts[0] + step * number for number in range(len(layers))]:
        return None
    forms = {
        (layer.untyped_storage().data_ptr(), layer.shape, layer.stride(), layer.dtype, layer.device) for layer in layers
    }
    if len(forms) > 1:
        return None
    return first.as_strided((len(layers), *first.shape), (step, *first.stride()), starts[0])
