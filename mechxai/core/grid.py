"""Sweep grids: a site name and the axes to sweep; every combination of coordinates is one site to edit."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mechxai.core.architecture import Architecture
from mechxai.core.batch import ContrastBatch
from mechxai.core.display import counted
from mechxai.core.errors import ConfigError, SiteError, nearest
from mechxai.core.site import Site
from mechxai.core.site_table import site_name

Position = int | str
Axis = Literal["layer", "pos", "head", "neuron"]
"""An axis that a grid can sweep."""
Axes = Mapping[str, Sequence[Position]]  # axis -> coordinates


@dataclass(frozen=True)
class Grid:
    """The sites of one name, laid out along named axes.

    Attributes:
        site: a site name.
        over: the axes to sweep, in the order of the result's dims; from ``layer``, ``pos``, ``head``, ``neuron``.
        layers: the layers; all by default.
        heads: the heads; all by default (key/value heads for ``k`` and ``v``).
        pos: positions or roles (``[-1, "S2"]``); all positions by default. If ``pos`` is not swept, it may fix one.
        neurons: the neurons; all by default.
    """

    site: str
    over: Sequence[str]
    layers: Sequence[int] | None = None
    heads: Sequence[int] | None = None
    pos: Sequence[Position] | None = None
    neurons: Sequence[int] | None = None

    def __post_init__(self) -> None:
        row = site_name(self.site)
        object.__setattr__(self, "site", row.name)
        if len(set(self.over)) != len(self.over):
            raise ConfigError(f"over={tuple(self.over)} names an axis twice")
        for axis in self.over:
            if axis not in row.sweepable:
                raise ConfigError(f"{row.name} has no axis {axis!r} to sweep. {nearest(axis, row.sweepable)}")

    def axes(self, architecture: Architecture, batch: ContrastBatch) -> Axes:
        """The coordinates of every axis, checked against the model and the batch.

        Raises:
            SiteError: a layer, head, neuron or position that does not exist.
            ConfigError: several layers, heads or neurons on an axis that is not swept.
        """
        row = site_name(self.site)
        head_count = architecture.size(row.head_axis) if row.head_axis else 0
        coordinates: dict[str, Sequence[Position]] = {}
        for axis, indices, count in (
            ("layer", self.layers, architecture.n_layers if row.has_layer else 0),
            ("head", self.heads, head_count),
            ("neuron", self.neurons, architecture.d_mlp if "d_mlp" in row.axes else 0),
        ):
            if indices and not count:
                raise SiteError(f"{axis} {indices[0]} does not apply to {row.name}, which has no {axis} axis")
            coordinates[axis] = _selected(axis, indices, count)
        coordinates["pos"] = self._positions(batch)
        return coordinates

    def _positions(self, batch: ContrastBatch) -> Sequence[Position]:
        for pos in self.pos or ():
            if isinstance(pos, str):
                batch.layout.positions(pos)
            elif not -batch.n_pos <= pos < batch.n_pos:
                raise SiteError(
                    f"Position {pos} is out of range: the prompts have up to {batch.n_pos} tokens",
                    allowed=f"{-batch.n_pos} to {batch.n_pos - 1}",
                )
        return tuple(range(batch.n_pos)) if self.pos is None else self.pos

    def sites(self, architecture: Architecture, batch: ContrastBatch) -> tuple[Axes, list[Site]]:
        """The coordinates of the swept axes, and the site of every cell, the last axis varying fastest."""
        axes = self.axes(architecture, batch)
        fixed = {
            axis: self._fixed(axis, axes[axis]) for axis in ("layer", "head", "pos", "neuron") if axis not in self.over
        }
        swept = {axis: axes[axis] for axis in self.over}
        cells = [
            self._site({**fixed, **dict(zip(swept, coordinates, strict=True))})
            for coordinates in itertools.product(*swept.values())
        ]
        return swept, cells

    def _site(self, at: Mapping[str, Position | None]) -> Site:
        return Site(self.site, _number(at["layer"]), _number(at["head"]), at["pos"], _number(at["neuron"]))

    def _fixed(self, axis: str, values: Sequence[Position]) -> Position | None:
        """The one value of an axis that is not swept; None for all of it."""
        setting = {"layer": self.layers, "head": self.heads, "pos": self.pos, "neuron": self.neurons}[axis]
        if axis == "layer" and site_name(self.site).has_layer and len(values) != 1:
            raise ConfigError(
                f"{self.site} needs a layer, and 'layer' is not in over={tuple(self.over)}",
                fix="Add 'layer' to over, or give one layer in layers",
            )
        if setting is None:
            return values[0] if axis == "layer" and values else None
        if len(setting) != 1:
            raise ConfigError(
                f"{axis}={setting} has {len(setting)} values, and {axis!r} is not in over={tuple(self.over)}",
                fix=f"Add {axis!r} to over, or give exactly one value",
            )
        return values[0]


def _number(value: Position | None) -> int | None:
    return None if value is None else int(value)


def _selected(axis: str, indices: Sequence[int] | None, count: int) -> Sequence[int]:
    if indices is None:
        return tuple(range(count))
    for index in indices:
        if not -count <= index < count:
            noun = counted(count, axis if axis != "kv_head" else "key/value head")
            raise SiteError(f"{axis.capitalize()} {index} is out of range: this model has {noun} (0-{count - 1})")
    return tuple(index % count for index in indices)
