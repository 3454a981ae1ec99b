"""Interventions applied to activations."""

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
        edits: rows (all prompts of ``layout``, in its order) and the intervention there, applied in order.
        layout: of the prompts; a prompt without the position of an edit stays as it is.
    """
    new = activation.clone()
    for rows, intervention in edits:
        part = new[rows]  # a view of ``new``
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
    """Hook functions that apply interventions to every row of a run.

    Args:
        interventions: applied in order.
        layout: of the prompts that the interventions are for.
        rows: the prompts of the run, one row each; all by default.
    """
    if rows is not None:
        layout = layout.rows(rows)
        interventions = [intervention.rows(rows) for intervention in interventions]
    all_rows = slice(0, len(layout.lengths))
    hooks: dict[str, list[HookFunction]] = {}
    for intervention in interventions:
        hooks.setdefault(intervention.site.hook, []).append(
            lambda activation, edit=intervention: edited(activation, [(all_rows, edit)], layout)
        )
    return hooks
