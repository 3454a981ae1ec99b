"""Cached activations: a mapping from sites to tensors that resolves heads, positions and roles."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mechxai.core.batch import Layout
from mechxai.core.display import Displayed, Summary, counted
from mechxai.core.errors import ShapeError, SiteError
from mechxai.core.shapes import Rows
from mechxai.core.site import POSITION_AXES, Site
from mechxai.core.site_table import site_name


@dataclass(frozen=True, repr=False)
class Activations(Displayed):
    """Cached activations of a model.

    ``acts["z", 3]`` is the activation of a whole layer, ``[batch, pos, head, d_head]``; ``acts["z"]`` (or
    ``acts.stack("z")``) all cached layers, ``[layer, batch, pos, head, d_head]``; ``acts[Site.parse("...")]`` the part
    that a site names.

    Attributes:
        values: whole site -> activation, leading axis ``batch``.
        layout: lengths and roles of the prompts.
        kept: the cached positions, if not all; site positions are then looked up among them.
    """

    values: Mapping[Site, Tensor]
    layout: Layout
    kept: tuple[int, ...] | None = field(default=None)

    def __getitem__(self, key: "str | Site | tuple[str, int]") -> Tensor:
        if isinstance(key, str) and site_name(key).has_layer:
            return self.stack(key)
        site = key if isinstance(key, Site) else Site(key) if isinstance(key, str) else Site(*key)
        if site.whole not in self.values:
            raise SiteError(f"{site.whole} is not among the cached activations", allowed=self._cached())
        activation = self.values[site.whole]
        if site == site.whole:
            return activation
        positions = None if site.pos is None else self._stored(site)
        return activation[site.index(positions, len(activation))]

    def __contains__(self, key: object) -> bool:
        return key in self.values

    def __iter__(self) -> Iterator[Site]:
        return iter(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def layers(self, name: str) -> list[int]:
        """The cached layers of a site, ascending."""
        row = site_name(name)
        return sorted(site.layer for site in self.values if site.name == row.name and site.layer is not None)

    def stack(self, name: str) -> Tensor:
        """All cached layers of a site, ``[layer, batch, ...]``; no copy where they are evenly spaced in memory.

        Raises:
            SiteError: no layer of the site is cached.
            ShapeError: the layers differ in shape, as in models whose head size differs from layer to layer.
        """
        layers = [self[name, layer] for layer in self.layers(name)]
        if not layers:
            raise SiteError(f"No layer of {site_name(name).name} is cached", allowed=self._cached())
        self._check_one_shape(name)
        view = _common_view(layers)
        return torch.stack(layers) if view is None else view

    def _check_one_shape(self, name: str) -> None:
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for layer in self.layers(name):
            by_shape.setdefault(tuple(self[name, layer].shape), []).append(layer)
        if len(by_shape) > 1:
            listed = ", ".join(f"{list(shape)} in layers {_ranges(layers)}" for shape, layers in by_shape.items())
            raise ShapeError(
                f"Layers of {site_name(name).name} differ in shape and cannot be stacked: {listed}",
                fix=f'Read one layer at a time, acts["{site_name(name).name}", layer], or cache layers of one shape',
            )

    def rows(self, chosen: Rows) -> "Activations":
        """The activations of some prompts."""
        return Activations(
            {site: value[chosen] for site, value in self.values.items()}, self.layout.rows(chosen), self.kept
        )

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes."""
        return sum(value.element_size() * value.nelement() for value in self.values.values())

    def summary(self) -> Summary:
        """Prompts, memory, and each cached site with its layers and shape."""
        rows: list[tuple[str, ...]] = []
        for name in dict.fromkeys(site.name for site in self.values):
            layers, shape = (
                self.layers(name),
                next(value.shape for site, value in self.values.items() if site.name == name),
            )
            rows.append((name, f"layers {_ranges(layers)}" if layers else "", str(list(shape))))
        title = f"Activations: {counted(len(self.layout.lengths), 'prompt')}, {self.nbytes / 2**20:.1f} MiB"
        return Summary(title, rows)

    def _cached(self) -> str:
        return ", ".join(str(site) for site in self.values) or "nothing is cached"

    def _stored(self, site: Site) -> Tensor:
        """The index of the site's position in each row of the cached tensor."""
        at, _ = self.layout.positions(site.pos if site.pos is not None else 0)
        axis = 1 + next(number for number, name in enumerate(site.row.axes) if name in POSITION_AXES)
        width = self.values[site.whole].shape[axis] if self.kept is None else max(self.kept) + 1
        if isinstance(site.pos, int) and not -width <= site.pos < width:
            raise SiteError(f"Position {site.pos} of {site} is out of range: the cached rows have {width} positions")
        if self.kept is None:
            return at
        lookup = {position: index for index, position in enumerate(self.kept)}
        missing = sorted({int(position) for position in at} - set(lookup))
        if missing:
            raise SiteError(f"Position {missing[0]} of {site} is not cached", allowed=self.kept)
        return torch.tensor([lookup[int(position)] for position in at], device=at.device)


def _ranges(numbers: list[int]) -> str:
    """``0-11`` for consecutive numbers, else a list."""
    if len(numbers) > 1 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}-{numbers[-1]}"
    return ", ".join(map(str, numbers))


def _common_view(layers: list[Tensor]) -> Tensor | None:
    """One view of all layers, ``[layer, ...]``, where they are evenly spaced in one memory block; else None."""
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
