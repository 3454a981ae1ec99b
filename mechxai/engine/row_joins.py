"""Where in a block a cell's row joins when only what its edit changes is computed.

A row may begin at a block's input, after its attention, or at its end. An edit of `z`, `attn_out` or `mlp_out` moves
the residual stream by a difference, so the block up to there is the unedited run's and is not computed again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mechxai.core.architecture import Architecture
from mechxai.core.site import Site
from mechxai.core.site_table import ATTENDED, BLOCK_END, IN_MLP
from mechxai.engine.affected_range import entry_layer
from mechxai.engine.sweep import Cell

INPUT, AFTER_ATTENTION, END = range(3)


@dataclass(frozen=True, order=True)
class Join:
    """Where a row begins.

    Attributes:
        layer: the layer.
        stage: `INPUT`, `AFTER_ATTENTION` or `END` of its block.
        site: name of the site that is edited right there, on the unedited run's values; "" when the block does it.
    """

    layer: int
    stage: int
    site: str = ""


def join_of(cell: Cell, architecture: Architecture) -> Join:
    """Where the row of a cell begins."""
    layer = entry_layer(cell)
    if layer < 0:
        return Join(0, INPUT)
    here = {one.site.name: one.site.row.stage for one in cell if one.site.layer == layer}
    first = min(here.values())
    names = [name for name, stage in here.items() if stage == first]
    if len(names) > 1 or first < ATTENDED:
        return Join(layer, INPUT)
    if first == BLOCK_END:
        return Join(layer, END, names[0])
    serial = not architecture.parallel and not architecture.attn_only
    if serial:
        return Join(layer, AFTER_ATTENTION, "" if first == IN_MLP and names[0] != "resid_mid" else names[0])
    if first == ATTENDED and len(here) == 1:  # nothing in the block reads what attention wrote
        return Join(layer, END, names[0])
    return Join(layer, INPUT)


def base_sites(cells: Sequence[Cell], architecture: Architecture) -> list[Site]:
    """Whole sites whose values in the unedited run rows begin from, beside the residual stream before blocks."""
    found: dict[Site, None] = {}
    for cell in cells:
        join = join_of(cell, architecture)
        if join.stage == AFTER_ATTENTION:
            found[Site("resid_mid", join.layer)] = None
        if join.site and join.site != "resid_post":
            found[Site(join.site, join.layer)] = None
    return list(found)
