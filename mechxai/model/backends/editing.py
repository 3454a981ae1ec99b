"""Interventions applied to activations."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mechxai.core.batch import Layout
from mechxai.core.edit import Intervention
from mechxai.model.backends.hooks import HookFunction
from mechxai.model.backends.masking import AttentionMask


def edited(
    activation: Tensor, edits: Sequence[tuple[slice, Intervention]], layout: Layout, *, mask: AttentionMask
) -> Tensor:
    """A copy of an activation with edits made in some of its rows.

    Args:
        activation: ``[rows, *axes]``.
        edits: rows (all prompts of ``layout``, in its order) and the intervention there, applied in order.
        layout: of the prompts; a prompt without the position of an edit stays as it is.
        mask: of the model's attention; masked scores and patterns stay as they are.
    """
    new = activation.clone()
    lengths = None if mask.causal else layout.lengths  # behind a causal mask no real token sees padding
    for rows, intervention in edits:
        part = new[rows]  # a view of ``new``
        site = intervention.site
        if site.pos is None:
            index = site.index(None, len(part))
            before = part[index]
            dest = torch.arange(new.shape[-2], device=new.device)
            part[index] = mask.keep(before, intervention.edit(before, site), site, dest=dest, lengths=lengths)
            continue
        positions, valid = layout.positions(site.pos)
        index = site.index(positions, len(part))
        before = part[index]
        after = mask.keep(before, intervention.edit(before, site), site, dest=positions, lengths=lengths)
        part[index] = torch.where(valid.reshape(-1, *(1,) * (before.ndim - 1)), after, before)
    return new


def run_hooks(
    interventions: Sequence[Intervention], layout: Layout, rows: slice | None = None, *, mask: AttentionMask
) -> dict[str, list[HookFunction]]:
    """Hook functions that apply interventions to every row of a run.

    Args:
        interventions: applied in order.
        layout: of the prompts that the interventions are for.
        rows: the prompts of the run, one row each; all by default.
        mask: of the model's attention.
    """
    if rows is not None:
        layout = layout.rows(rows)
        interventions = [intervention.rows(rows) for intervention in interventions]
    all_rows = slice(0, len(layout.lengths))
    hooks: dict[str, list[HookFunction]] = {}
    for intervention in interventions:
        hooks.setdefault(intervention.site.hook, []).append(
            lambda activation, edit=intervention: edited(activation, [(all_rows, edit)], layout, mask=mask)
        )
    return hooks
