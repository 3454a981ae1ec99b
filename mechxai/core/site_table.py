"""The table of sites: one row holds everything that depends on which site it is. Imports no torch.

A row has the hook name, the axes, and the models and backends that have the site, so that a new site is one row. The
names are TransformerLens' own.
"""

from dataclasses import dataclass

from mechxai.core.errors import SiteError, unknown

# How far into its block a site lies: before keys and values spread it over positions; before heads are mixed; after
# attention; in the MLP; at the block's end. From QUERY on, an edit at one position stays at that position.
SPREADS, QUERY, ATTENDED, IN_MLP, BLOCK_END = range(5)
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
        dense_mlp: models whose MLPs route each token to experts do not have it: every token has neurons of other MLPs.
        serial_only: parallel blocks, in which attention and MLP read the same residual stream, do not have it.
        dense: the dense blocks (`mechxai.model.dense`) compute it, so that engine level 4 can edit it. Levels 0 to 3
            can edit every site that the backend can.
        flag: TransformerLens option without which the hook point does not fire.
        masked_bridge: whether a `TransformerBridge` of a masked model (BERT) shows its true value.
        in_place_on: backends on which an edit must overwrite the tensor, as a new tensor would miss the residual
            connection.
    """

    name: str
    hook: str
    axes: tuple[str, ...]
    entry: str = "block"
    stage: int = SPREADS
    needs_mlp: bool = False
    dense_mlp: bool = False
    serial_only: bool = False
    dense: bool = False
    flag: str = ""
    masked_bridge: bool = True
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
BLOCK = "blocks.{layer}."
_TABLE = (
    SiteName("embed", "hook_embed", _RESID, "embed"),
    SiteName("pos_embed", "hook_pos_embed", _RESID, "embed"),
    SiteName("resid_pre", f"{BLOCK}hook_resid_pre", _RESID, dense=True),
    SiteName(
        "resid_mid",
        f"{BLOCK}hook_resid_mid",
        _RESID,
        stage=IN_MLP,
        needs_mlp=True,
        serial_only=True,
        dense=True,
        masked_bridge=False,
        in_place_on=BRIDGE,  # the hook stands at the input of the MLP's norm
    ),
    SiteName("resid_post", f"{BLOCK}hook_resid_post", _RESID, stage=BLOCK_END, dense=True),
    SiteName("attn_out", f"{BLOCK}hook_attn_out", _RESID, stage=ATTENDED, dense=True),
    SiteName("mlp_out", f"{BLOCK}hook_mlp_out", _RESID, stage=BLOCK_END, needs_mlp=True, dense=True),
    SiteName("q", f"{BLOCK}attn.hook_q", _HEAD, stage=QUERY, dense=True),
    SiteName("k", f"{BLOCK}attn.hook_k", _KV_HEAD, dense=True),
    SiteName("v", f"{BLOCK}attn.hook_v", _KV_HEAD, dense=True),
    SiteName("z", f"{BLOCK}attn.hook_z", _HEAD, stage=ATTENDED, dense=True),
    SiteName(
        "result",
        f"{BLOCK}attn.hook_result",
        ("pos", "head", "d_model"),
        stage=ATTENDED,
        dense=True,
        flag="use_attn_result",
        masked_bridge=False,
    ),
    SiteName("attn_scores", f"{BLOCK}attn.hook_attn_scores", _PATTERN, stage=QUERY, dense=True),
    SiteName("pattern", f"{BLOCK}attn.hook_pattern", _PATTERN, stage=QUERY, dense=True),
    SiteName("mlp_pre", f"{BLOCK}mlp.hook_pre", _NEURONS, stage=IN_MLP, needs_mlp=True, dense_mlp=True, dense=True),
    SiteName("mlp_post", f"{BLOCK}mlp.hook_post", _NEURONS, stage=IN_MLP, needs_mlp=True, dense_mlp=True, dense=True),
    SiteName("ln1_scale", f"{BLOCK}ln1.hook_scale", _SCALE),
    SiteName("ln1_normalized", f"{BLOCK}ln1.hook_normalized", _RESID),
    SiteName("ln2_scale", f"{BLOCK}ln2.hook_scale", _SCALE, stage=IN_MLP, needs_mlp=True),
    SiteName("ln2_normalized", f"{BLOCK}ln2.hook_normalized", _RESID, stage=IN_MLP, needs_mlp=True),
    SiteName("ln_final_scale", "ln_final.hook_scale", _SCALE, "end"),
    SiteName("ln_final_normalized", "ln_final.hook_normalized", _RESID, "end"),
)
SITES: dict[str, SiteName] = {row.name: row for row in _TABLE}
_ALIASES = {"pre": "mlp_pre", "post": "mlp_post", "attn": "pattern", "scores": "attn_scores"}
HOOKS = {row.hook: row for row in _TABLE}


def site_name(name: str) -> SiteName:
    """The table row of a site name or TransformerLens short name.

    Raises:
        SiteError: no such site; the message names the nearest one.
    """
    row = SITES.get(_ALIASES.get(name, name))
    if row is None:
        raise SiteError(unknown("site", name, SITES))
    return row
