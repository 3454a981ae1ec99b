"""Sites: the named activations of a transformer, optionally narrowed to a head, a position or a neuron.

The rows of `mechxai.core.site_table` say where each lies; `Site.index` locates any site in any activation.
"""

import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mechxai.core.cached import cached_property
from mechxai.core.errors import SiteError, nearest
from mechxai.core.site_table import BLOCK, HOOKS, SITES, SiteName, site_name

Index = tuple[int | slice | Tensor, ...]
POSITION_AXES = ("pos", "dest_pos")
_INDICES = ("head", "pos", "neuron")
_FORM = re.compile(r"^(?:blocks\.(?P<layer>\d+)\.)?(?P<name>[A-Za-z_][\w.]*?)(?:\[(?P<index>[^\]]*)\])?$")


@dataclass(frozen=True)
class Site:
    """An activation of a model, or the part of it at one head, position or neuron.

    Attributes:
        name: a name from the table.
        layer: block number; None for sites outside the blocks.
        head: one head (a key/value head for ``k`` and ``v``); None for all.
        pos: a position, counted from the row's end when negative; a role of the batch (``"S2"``); None for all. For
            ``pattern`` and ``attn_scores`` it is the attending (destination) position.
        neuron: one MLP neuron; None for all.
    """

    name: str
    layer: int | None = None
    head: int | None = None
    pos: int | str | None = None
    neuron: int | None = None

    def __post_init__(self) -> None:
        row = site_name(self.name)
        object.__setattr__(self, "name", row.name)
        if row.has_layer and self.layer is None:
            raise SiteError(f"Site {self.name!r} needs a layer", fix=f"Write blocks.<layer>.{self.name}")
        if self.layer is not None and not row.has_layer:
            raise SiteError(
                f"Site {self.name!r} lies outside the blocks and takes no layer: layer={self.layer}",
                fix=f"Write {self.name}",
            )
        for field, axis in (("head", row.head_axis), ("neuron", "d_mlp" if "d_mlp" in row.axes else None)):
            if getattr(self, field) is not None and axis is None:
                axes = ", ".join(row.axes)
                raise SiteError(
                    f"{field}={getattr(self, field)} does not apply to site {self.name!r}, whose axes are {axes}"
                )

    @cached_property
    def row(self) -> SiteName:
        """The table row."""
        return SITES[self.name]

    @cached_property
    def hook(self) -> str:
        """The TransformerLens hook name."""
        return self.row.hook.format(layer=self.layer)

    @cached_property
    def whole(self) -> "Site":
        """The same activation without head, position or neuron."""
        is_whole = self.head is None and self.pos is None and self.neuron is None
        return self if is_whole else replace(self, head=None, pos=None, neuron=None)

    @classmethod
    def parse(cls, text: str) -> "Site":
        """The site in a string: ``blocks.9.z[head=6,pos=-1]``, or TransformerLens' ``blocks.9.attn.hook_z``.

        Raises:
            SiteError: the text is in neither form, or names a site that the table does not have.
        """
        match = _FORM.match(text.strip())
        if match is None:
            raise SiteError(f"{text!r} is not a site", allowed="blocks.<layer>.<name>[head=,pos=,neuron=]")
        layer = None if match["layer"] is None else int(match["layer"])
        row = HOOKS.get(match["name"] if layer is None else BLOCK + match["name"])
        index = _parse_index(text, match["index"])
        pos = index.pop("pos", None)
        return cls(
            row.name if row else match["name"],
            layer,
            pos=pos,
            **{axis: int(value) for axis, value in index.items()},
        )

    def __str__(self) -> str:
        prefix = "" if self.layer is None else f"blocks.{self.layer}."
        index = ",".join(f"{key}={value}" for key in _INDICES if (value := getattr(self, key)) is not None)
        return f"{prefix}{self.name}" + (f"[{index}]" if index else "")

    def along(self, axis: str) -> int | slice:
        """The index into an axis other than a position: the site's head or neuron, or all of them."""
        number = {"head": self.head, "kv_head": self.head, "d_mlp": self.neuron}.get(axis)
        return slice(None) if number is None else number

    def index(self, positions: Tensor | None, n_rows: int) -> Index:
        """The index of this site in an activation ``[rows, *axes]``.

        Args:
            positions: the position in each row, ``[rows]``; None when the site takes every position.
            n_rows: rows of the activation.

        Returns:
            A tuple for ``activation[...]``; the result starts with ``rows`` and keeps the free axes in order.
        """
        if positions is None:
            return (slice(None), *(self.along(axis) for axis in self.row.axes))
        rows = torch.arange(n_rows, device=positions.device)
        return (rows, *(positions if axis in POSITION_AXES else self.along(axis) for axis in self.row.axes))


def _parse_index(text: str, index: str | None) -> dict[str, int | str]:
    parsed: dict[str, int | str] = {}
    for part in filter(None, (piece.strip() for piece in (index or "").split(","))):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in _INDICES:
            raise SiteError(f"Site {text!r} has an unknown index {key!r}. {nearest(key, _INDICES)}")
        if re.fullmatch(r"-?\d+", value):
            parsed[key] = int(value)
        elif key == "pos" and re.fullmatch(r"[A-Za-z_]\w*", value):
            parsed[key] = value
        else:
            raise SiteError(
                f"Site {text!r} has {key}={value!r}", allowed="a whole number (or a role of the batch, for pos)"
            )
    return parsed
