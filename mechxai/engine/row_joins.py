"""The place in a block at which the row of a cell joins, so that only the part that its edit changes is computed.

A row can join at a block's input, after its attention, or at its end. An edit of `z`, `attn_out` or `mlp_out` adds a
difference to the residual stream, so the block up to that site is the unedited run's and is not computed again.
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
    """The place at which a row joins.

    Attributes:
        layer: the layer.
        stage: `INPUT`, `AFTER_ATTENTION` or `END` of its block.
        site: name of the site whose edit is made on the unedited run's values at the join; "" if the block makes it.
    """

    layer: int
    stage: int
    site: str = ""


def join_of(cell: Cell, architecture: Architecture) -> Join:
    """The place at which the row of a cell joins."""
    layer = entry_layer(cell)
    if layer < 0:
        return Join(0, INPUT)
    stages = {
        intervention.site.name: intervention.site.row.stage for intervention in cell if intervention.site.layer == layer
    }
    first = min(stages.values())
    names = [name for name, stage in stages.items() if stage == first]
    if len(names) > 1 or first < ATTENDED:
        return Join(layer, INPUT)
    if first == BLOCK_END:
        return Join(layer, END, names[0])
    serial = not architecture.parallel and not architecture.attn_only
    if serial:
        return Join(layer, AFTER_ATTENTION, "" if first == IN_MLP and names[0] != "resid_mid" else names[0])
    if first == ATTENDED and len(stages) == 1:  # nothing in the block reads the output of attention
        return Join(layer, END, names[0])
    return Join(layer, INPUT)


def base_sites(cells: Sequence[Cell], architecture: Architecture) -> list[Site]:
    """Whole sites of the unedited run from which rows start, beside the residual stream before blocks."""
    sites: dict[Site, None] = {}
    for cell in cells:
        join = join_of(cell, architecture)
        if join.stage == AFTER_ATTENTION:
            sites[Site("resid_mid", join.layer)] = None
        if join.site and join.site != "resid_post":
            sites[Site(join.site, join.layer)] = None
    return list(sites)
