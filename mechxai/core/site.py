"""Where in a model: a name from one table, a layer, and any of head, position, neuron.

The table row carries the hook name and the axes of the activation, so one function (`Site.index`) finds the place
of any site in any activation. Names are TransformerLens' own words.
"""

import re
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from mechxai.core.errors import SiteError, nearest

Index = tuple[int | slice | Tensor, ...]
POSITION_AXES = ("pos", "dest_pos")
# How far into its block a site lies: before keys and values spread it over positions; before heads are mixed; after
# attention; in the MLP; at the block's end. What stands at one position stays there from QUERY on.
SPREADS, QUERY, ATTENDED, IN_MLP, BLOCK_END = range(5)


@dataclass(frozen=True)
class SiteName:
    """One row of the table.

    Attributes:
        hook: TransformerLens hook name; ``{layer}`` stands for the layer.
        axes: dimensions after ``batch``. ``kv_head`` marks key/value heads (grouped-query models have fewer).
        entry: ``embed`` when the site lies before block 0, ``block`` inside a block, ``end`` after the last.
        stage: how far into its block it lies.
    """

    name: str
    hook: str
    axes: tuple[str, ...]
    entry: str = "block"
    stage: int = SPREADS

    @property
    def has_layer(self) -> bool:
        """Whether the site exists once per layer."""
        return self.entry == "block"

    @property
    def head_axis(self) -> str | None:
        """``head``, ``kv_head`` or None."""
        return next((axis for axis in self.axes if axis in ("head", "kv_head")), None)

    @property
    def sweepable(self) -> tuple[str, ...]:
        """The axes a grid may run over."""
        found = {
            "layer": self.has_layer,
            "pos": True,
            "head": self.head_axis is not None,
            "neuron": "d_mlp" in self.axes,
        }
        return tuple(axis for axis, present in found.items() if present)


_RESID = ("pos", "d_model")
_TABLE = (
    SiteName("embed", "hook_embed", _RESID, "embed"),
    SiteName("pos_embed", "hook_pos_embed", _RESID, "embed"),
    SiteName("resid_pre", "blocks.{layer}.hook_resid_pre", _RESID),
    SiteName("resid_mid", "blocks.{layer}.hook_resid_mid", _RESID, stage=IN_MLP),
    SiteName("resid_post", "blocks.{layer}.hook_resid_post", _RESID, stage=BLOCK_END),
    SiteName("attn_out", "blocks.{layer}.hook_attn_out", _RESID, stage=ATTENDED),
    SiteName("mlp_out", "blocks.{layer}.hook_mlp_out", _RESID, stage=BLOCK_END),
    SiteName("q", "blocks.{layer}.attn.hook_q", ("pos", "head", "d_head"), stage=QUERY),
    SiteName("k", "blocks.{layer}.attn.hook_k", ("pos", "kv_head", "d_head")),
    SiteName("v", "blocks.{layer}.attn.hook_v", ("pos", "kv_head", "d_head")),
    SiteName("z", "blocks.{layer}.attn.hook_z", ("pos", "head", "d_head"), stage=ATTENDED),
    SiteName("result", "blocks.{layer}.attn.hook_result", ("pos", "head", "d_model"), stage=ATTENDED),
    SiteName("attn_scores", "blocks.{layer}.attn.hook_attn_scores", ("head", "dest_pos", "src_pos"), stage=QUERY),
    SiteName("pattern", "blocks.{layer}.attn.hook_pattern", ("head", "dest_pos", "src_pos"), stage=QUERY),
    SiteName("mlp_pre", "blocks.{layer}.mlp.hook_pre", ("pos", "d_mlp"), stage=IN_MLP),
    SiteName("mlp_post", "blocks.{layer}.mlp.hook_post", ("pos", "d_mlp"), stage=IN_MLP),
    SiteName("ln1_scale", "blocks.{layer}.ln1.hook_scale", ("pos", "one")),
    SiteName("ln1_normalized", "blocks.{layer}.ln1.hook_normalized", _RESID),
    SiteName("ln2_scale", "blocks.{layer}.ln2.hook_scale", ("pos", "one"), stage=IN_MLP),
    SiteName("ln2_normalized", "blocks.{layer}.ln2.hook_normalized", _RESID, stage=IN_MLP),
    SiteName("ln_final_scale", "ln_final.hook_scale", ("pos", "one"), "end"),
    SiteName("ln_final_normalized", "ln_final.hook_normalized", _RESID, "end"),
)
SITES: dict[str, SiteName] = {row.name: row for row in _TABLE}
_ALIASES = {"pre": "mlp_pre", "post": "mlp_post", "attn": "pattern", "scores": "attn_scores"}
_HOOKS = {row.hook: row for row in _TABLE}
_FORM = re.compile(r"^(?:blocks\.(?P<layer>\d+)\.)?(?P<name>[A-Za-z_][\w.]*?)(?:\[(?P<index>[^\]]*)\])?$")


def site_name(name: str) -> SiteName:
    """The table row of a site name or TransformerLens short name.

    Raises:
        SiteError: no such site; the message names the nearest one.
    """
    row = SITES.get(_ALIASES.get(name, name))
    if row is None:
        raise SiteError(f"Site {name!r} was asked", got="no such site", allowed=nearest(name, SITES))
    return row


@dataclass(frozen=True)
class Site:
    """One place in a model.

    Attributes:
        name: a name from the table.
        layer: block number; None for sites outside the blocks.
        head: one head (a key/value head for ``k`` and ``v``), or all.
        pos: a position, counted from the row's end when negative; a role of the batch (``"S2"``); or all. For
            ``pattern`` and ``attn_scores`` it is the attending (destination) position.
        neuron: one MLP neuron, or all.
    """

    name: str
    layer: int | None = None
    head: int | None = None
    pos: int | str | None = None
    neuron: int | None = None

    def __post_init__(self) -> None:
        row = site_name(self.name)
        object.__setattr__(self, "name", row.name)
        if row.has_layer != (self.layer is not None):
            need = "needs a layer" if row.has_layer else "lies outside the blocks and takes no layer"
            raise SiteError(
                f"Site {self.name!r} {need}", got=f"layer={self.layer}", fix="write blocks.<layer>.<name> or <name>"
            )
        for field, axis in (("head", row.head_axis), ("neuron", "d_mlp" if "d_mlp" in row.axes else None)):
            if getattr(self, field) is not None and axis is None:
                raise SiteError(
                    f"Site {self.name!r} has no {field} axis", got=f"{field}={getattr(self, field)}", allowed=row.axes
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
        free = self.head is None and self.pos is None and self.neuron is None
        return self if free else replace(self, head=None, pos=None, neuron=None)

    @classmethod
    def parse(cls, text: str) -> "Site":
        """The site a string names: ours (``blocks.9.z[head=6,pos=-1]``) or TransformerLens' (``blocks.9.attn.hook_z``).

        Raises:
            SiteError: the text is not of either form, or names what the table does not have.
        """
        match = _FORM.match(text.strip())
        if match is None:
            raise SiteError(f"Site {text!r} cannot be read", allowed="blocks.<layer>.<name>[head=,pos=,neuron=]")
        layer = None if match["layer"] is None else int(match["layer"])
        row = _HOOKS.get(match["name"] if layer is None else "blocks.{layer}." + match["name"])
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
        index = ",".join(
            f"{key}={value}" for key in ("head", "pos", "neuron") if (value := getattr(self, key)) is not None
        )
        return f"{prefix}{self.name}" + (f"[{index}]" if index else "")

    def along(self, axis: str) -> int | slice:
        """The index of an axis that holds no positions: the site's head or neuron where it names one, else all."""
        chosen = {"head": self.head, "kv_head": self.head, "d_mlp": self.neuron}.get(axis)
        return slice(None) if chosen is None else chosen

    def index(self, positions: Tensor | None, n_rows: int) -> Index:
        """The index of this site in an activation ``[rows, *axes]``.

        Args:
            positions: the row's own position, ``[rows]``; None when the site takes every position.
            n_rows: rows of the activation.

        Returns:
            A tuple for ``activation[...]``; the result starts with ``rows`` and keeps the free axes in order.
        """
        if positions is None:
            return (slice(None), *(self.along(axis) for axis in self.row.axes))
        rows = torch.arange(n_rows, device=positions.device)
        return (rows, *(positions if axis in POSITION_AXES else self.along(axis) for axis in self.row.axes))


def _parse_index(text: str, index: str | None) -> dict[str, int | str]:
    found: dict[str, int | str] = {}
    for part in filter(None, (piece.strip() for piece in (index or "").split(","))):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in ("head", "pos", "neuron"):
            raise SiteError(
                f"Site {text!r} has an unknown index {key!r}", allowed=nearest(key, ("head", "pos", "neuron"))
            )
        if re.fullmatch(r"-?\d+", value):
            found[key] = int(value)
        elif key == "pos" and re.fullmatch(r"[A-Za-z_]\w*", value):
            found[key] = value
        else:
            raise SiteError(
                f"Site {text!r} has {key}={value!r}", allowed="a whole number (or a role of the batch, for pos)"
            )
    return found
