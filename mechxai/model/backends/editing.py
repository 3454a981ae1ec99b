"""Edits made in an activation, in some of its rows."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mechxai.core.batch import Layout
from mechxai.core.edit import Intervention
from mechxai.model.backends.hooks import HookFunction


def edited(activation: Tensor, edits: Sequence[tuple[slice, Intervention]], layout: Layout) -> Tensor:
    """A copy of an activation with edits made in some of its rows.

    Args:
        activation: ``[rows, *axes]``.
        edits: which rows (all prompts of ``layout``, in its order), and what to do there; made one after the other.
        layout: of the prompts; a prompt that lacks the position an edit names stays as it is.
    """
    new = activation.clone()
    for rows, intervention in edits:
        part = new[rows]  # a view: what is written here is written into ``new``
        site = intervention.site
        if site.pos is None:
            index = site.index(None, len(part))
            part[index] = intervention.edit(part[index], site)
            continue
        positions, valid = layout.positions(site.pos)
        index = site.index(positions, len(part))
        before = part[index]
        after = intervention.edit(before, site)
        part[index] = torch.where(valid.reshape(-1, *(1,) * (before.ndim - 1)), after, before)
    return new


def run_hooks(
    interventions: Sequence[Intervention], layout: Layout, rows: slice | None = None
) -> dict[str, list[HookFunction]]:
    """Functions that make interventions in every row of a run.

    Args:
        interventions: made one after the other.
        layout: of the prompts they were made for.
        rows: the prompts of the run, one row each; all by default.
    """
    if rows is not None:
        layout = layout.rows(rows)
        interventions = [one.rows(rows) for one in interventions]
    everyone = slice(0, len(layout.lengths))
    hooks: dict[str, list[HookFunction]] = {}
    for one in interventions:
        hooks.setdefault(one.site.hook, []).append(
            lambda activation, one=one: edited(activation, [(everyone, one)], layout)
        )
    return hooks
