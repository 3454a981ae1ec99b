"""Sites: the named activations of a transformer, optionally narrowed to a head, a position or a neuron.

One table row per site holds its hook name, its axes, and the models and backends that have it, so that a new site is
one row and `Site.index` can locate any site in any activation. The names are TransformerLens' own.
"""

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from mechxai.core.errors import SiteError, nearest, unknown

Index = tuple[int | slice | Tensor, ...]
POSITION_AXES = ("pos", "dest_pos")
# How far into its block a site lies: before keys and values spread it over positions; before heads are mixed; after
# attention; in the MLP; at the block's end. From QUERY on, an edit at one position stays at that position.
SPREADS, QUERY, ATTENDED, IN_MLP, BLOCK_END = range(5)
Access = Literal["edit", "read", "none"]
BRIDGE = frozenset({"bridge"})


@dataclass(frozen=True)
class SiteName:
    """One row of the site table.

    Attributes:
        hook: TransformerLens hook name; ``{layer}`` stands for the layer.
        axes: dimensions after ``batch``. ``kv_head`` marks key/value heads (grouped-query models have fewer).
        entry: ``embed`` when the site lies before block 0, ``block`` inside a block, ``end`` after the last.
        stage: how far into its block it lies.
        needs_mlp: attention-only models do not have it.
        serial_only: parallel blocks, in which attention and MLP read the same residual stream, do not have it.
        dense: the dense blocks (`mechxai.model.dense`) compute it, so that engine level 4 can edit it. Levels 0 to 3
            can edit every site that the backend can.
        flag: TransformerLens option without which the hook point does not fire.
        bert_bridge: what a `TransformerBridge` of a post-norm bidirectional model (BERT) allows: an ``edit``, only to
            ``read``, or ``none``, where the bridge does not show the true value.
        in_place_on: backends on which an edit must overwrite the tensor, as a new tensor would miss the residual
            connection.
    """

    name: str
    hook: str
    axes: tuple[str, ...]
    entry: str = "block"
    stage: int = SPREADS
    needs_mlp: bool = False
    serial_only: bool = False
    dense: bool = False
    flag: str = ""
    bert_bridge: Access = "edit"
    in_place_on: frozenset[str] = frozenset()

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
        """The axes that a grid can sweep."""
        present = {
            "layer": self.has_layer,
            "pos": True,
            "head": self.head_axis is not None,
            "neuron": "d_mlp" in self.axes,
        }
        return tuple(axis for axis, is_present in present.items() if is_present)


_RESID, _SCALE = ("pos", "d_model"), ("pos", "one")
_HEAD, _KV_HEAD = ("pos", "head", "d_head"), ("pos", "kv_head", "d_head")
_PATTERN, _NEURONS = ("head", "dest_pos", "src_pos"), ("pos", "d_mlp")
_BLOCK = "blocks.{layer}."
_TABLE = (
    SiteName("embed", "hook_embed", _RESID, "embed"),
    SiteName("pos_embed", "hook_pos_embed", _RESID, "embed"),
    SiteName("resid_pre", f"{_BLOCK}hook_resid_pre", _RESID, dense=True),
    SiteName(
        "resid_mid",
        f"{_BLOCK}hook_resid_mid",
        _RESID,
        stage=IN_MLP,
        needs_mlp=True,
        serial_only=True,
        dense=True,
        bert_bridge="none",
        in_place_on=BRIDGE,  # the hook stands at the input of the MLP's norm
    ),
    SiteName("resid_post", f"{_BLOCK}hook_resid_post", _RESID, stage=BLOCK_END, dense=True),
    SiteName("attn_out", f"{_BLOCK}hook_attn_out", _RESID, stage=ATTENDED, dense=True),
    SiteName("mlp_out", f"{_BLOCK}hook_mlp_out", _RESID, stage=BLOCK_END, needs_mlp=True, dense=True),
    SiteName("q", f"{_BLOCK}attn.hook_q", _HEAD, stage=QUERY, dense=True),
    SiteName("k", f"{_BLOCK}attn.hook_k", _KV_HEAD, dense=True),
    SiteName("v", f"{_BLOCK}attn.hook_v", _KV_HEAD, dense=True),
    SiteName("z", f"{_BLOCK}attn.hook_z", _HEAD, stage=ATTENDED, dense=True),
    SiteName(
        "result",
        f"{_BLOCK}attn.hook_result",
        ("pos", "head", "d_model"),
        stage=ATTENDED,
        dense=True,
        flag="use_attn_result",
        bert_bridge="none",
    ),
    SiteName("attn_scores", f"{_BLOCK}attn.hook_attn_scores", _PATTERN, stage=QUERY, dense=True, bert_bridge="read"),
    SiteName("pattern", f"{_BLOCK}attn.hook_pattern", _PATTERN, stage=QUERY, dense=True, bert_bridge="read"),
    SiteName("mlp_pre", f"{_BLOCK}mlp.hook_pre", _NEURONS, stage=IN_MLP, needs_mlp=True, dense=True),
    SiteName("mlp_post", f"{_BLOCK}mlp.hook_post", _NEURONS, stage=IN_MLP, needs_mlp=True, dense=True),
    SiteName("ln1_scale", f"{_BLOCK}ln1.hook_scale", _SCALE),
    SiteName("ln1_normalized", f"{_BLOCK}ln1.hook_normalized", _RESID),
    SiteName("ln2_scale", f"{_BLOCK}ln2.hook_scale", _SCALE, stage=IN_MLP, needs_mlp=True),
    SiteName("ln2_normalized", f"{_BLOCK}ln2.hook_normalized", _RESID, stage=IN_MLP, needs_mlp=True),
    SiteName("ln_final_scale", "ln_final.hook_scale", _SCALE, "end"),
    SiteName("ln_final_normalized", "ln_final.hook_normalized", _RESID, "end"),
)
SITES: dict[str, SiteName] = {row.name: row for row in _TABLE}
_ALIASES = {"pre": "mlp_pre", "post": "mlp_post", "attn": "pattern", "scores": "attn_scores"}
_HOOKS = {row.hook: row for row in _TABLE}
_INDICES = ("head", "pos", "neuron")
_FORM = re.compile(r"^(?:blocks\.(?P<layer>\d+)\.)?(?P<name>[A-Za-z_][\w.]*?)(?:\[(?P<index>[^\]]*)\])?$")


def site_name(name: str) -> SiteName:
    """The table row of a site name or TransformerLens short name.

    Raises:
        SiteError: no such site; the message names the nearest one.
    """
    row = SITES.get(_ALIASES.get(name, name))
    if row is None:
        raise SiteError(unknown("site", name, SITES))
    return row


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
        row = _HOOKS.get(match["name"] if layer is None else _BLOCK + match["name"])
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
