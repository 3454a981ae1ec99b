"""A site name and the axes to sweep: every combination is one place to edit."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mechxai.core.architecture import Architecture
from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, SiteError, nearest
from mechxai.core.site import Site
from mechxai.core.site_table import site_name

Position = int | str
Axes = Mapping[str, Sequence[Position]]  # axis -> its coordinates


@dataclass(frozen=True)
class Grid:
    """Places of one kind, laid out along named axes.

    Attributes:
        site: a site name.
        over: the axes, in the order of the result's dims; from ``layer``, ``pos``, ``head``, ``neuron``.
        layers: the layers to take; all by default.
        heads: the heads; all by default (key/value heads for ``k`` and ``v``).
        pos: positions or roles (``[-1, "S2"]``); all positions by default. Off the axes, it fixes one place per cell.
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
            raise ConfigError("An axis is named twice", got=self.over)
        for axis in self.over:
            if axis not in row.sweepable:
                raise ConfigError(
                    f"Sweeping {row.name} over {axis!r} was asked",
                    got="it has no such axis",
                    allowed=nearest(axis, row.sweepable),
                )

    def axes(self, architecture: Architecture, batch: ContrastBatch) -> Axes:
        """Axis -> its coordinates, checked against the model and the batch.

        Raises:
            SiteError: a layer, head, neuron or position that does not exist.
            ConfigError: several layers, heads or neurons chosen off the axes.
        """
        row = site_name(self.site)
        head_count = architecture.size(row.head_axis) if row.head_axis else 0
        found: dict[str, Sequence[Position]] = {}
        for axis, chosen, count in (
            ("layer", self.layers, architecture.n_layers if row.has_layer else 0),
            ("head", self.heads, head_count),
            ("neuron", self.neurons, architecture.d_mlp if "d_mlp" in row.axes else 0),
        ):
            found[axis] = _chosen(f"{row.name}: {axis}", chosen, count)
        found["pos"] = self._positions(batch)
        return found

    def _positions(self, batch: ContrastBatch) -> Sequence[Position]:
        for pos in self.pos or ():
            if isinstance(pos, str):
                batch.layout.positions(pos)
            elif not -batch.n_pos <= pos < batch.n_pos:
                raise SiteError(
                    f"Position {pos} was asked",
                    got=f"prompts of up to {batch.n_pos} tokens",
                    allowed=f"{-batch.n_pos} to {batch.n_pos - 1}",
                )
        return tuple(range(batch.n_pos)) if self.pos is None else self.pos

    def sites(self, architecture: Architecture, batch: ContrastBatch) -> tuple[Axes, list[Site]]:
        """The coordinates of each axis in `over`, and the site of every cell, last axis fastest."""
        axes = self.axes(architecture, batch)
        fixed = {
            axis: self._fixed(axis, axes[axis]) for axis in ("layer", "head", "pos", "neuron") if axis not in self.over
        }
        swept = {axis: axes[axis] for axis in self.over}
        cells = [
            self._site({**fixed, **dict(zip(swept, place, strict=True))})
            for place in itertools.product(*swept.values())
        ]
        return swept, cells

    def _site(self, place: Mapping[str, Position | None]) -> Site:
        return Site(self.site, _number(place["layer"]), _number(place["head"]), place["pos"], _number(place["neuron"]))

    def _fixed(self, axis: str, values: Sequence[Position]) -> Position | None:
        chosen = {"layer": self.layers, "head": self.heads, "pos": self.pos, "neuron": self.neurons}[axis]
        if axis == "layer" and site_name(self.site).has_layer and len(values) != 1:
            raise ConfigError(
                f"Which layer of {self.site}?",
                got=f"layer is not among over={self.over}",
                fix="add 'layer' to over, or give one layer in layers=",
            )
        if chosen is None:
            return values[0] if axis == "layer" and values else None
        if len(chosen) != 1:
            raise ConfigError(
                f"{axis}={chosen} was asked but {axis!r} is not among over={self.over}",
                fix=f"add {axis!r} to over, or give exactly one",
            )
        return values[0]


def _number(value: Position | None) -> int | None:
    return None if value is None else int(value)


def _chosen(what: str, chosen: Sequence[int] | None, count: int) -> Sequence[int]:
    if chosen is None:
        return tuple(range(count))
    for value in chosen:
        if not -count <= value < count:
            raise SiteError(
                f"{what} {value} was asked",
                got=f"the model has {count}",
                allowed=f"0 to {count - 1}" if count else "none",
            )
    return tuple(value % count for value in chosen)
