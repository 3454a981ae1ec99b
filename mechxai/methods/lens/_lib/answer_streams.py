"""Activations at the answer position only, whatever the length of the prompts."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention
from mechxai.core.site import Site
from mechxai.model.backends.editing import run_hooks
from mechxai.model.backends.hooks import HookFunction
from mechxai.model.hooked_model import HookedModel

_ROWS_AT_ONCE = 16


def at_answers(
    model: HookedModel, batch: ContrastBatch, sites: Sequence[Site], *, run: str, interventions: Sequence[Intervention]
) -> tuple[dict[Site, Tensor], Tensor]:
    """Whole site -> activation of each prompt at its answer position; and the logits there, ``[prompt, d_vocab]``.

    Of patterns that is the answer's row; of values, which the answer reads everywhere, every position. Cost: one
    forward pass per prompt.
    """
    held: dict[Site, list[Tensor]] = {site: [] for site in sites}
    logits = []
    for rows, part in batch.parts(_ROWS_AT_ONCE):
        hooks = run_hooks(interventions, batch.layout, rows)
        for site in sites:
            hooks.setdefault(site.hook, []).append(_keeping(held[site], site, part.answer_pos))
        with torch.no_grad():
            found = model.forward(
                part.tokens(run), lengths=part.lengths, hooks=hooks, at=part.answer_pos[:, None], sites=sites
            )
        logits.append(found[:, 0])
    return {site: torch.cat(parts) for site, parts in held.items()}, torch.cat(logits)


def _keeping(into: list[Tensor], site: Site, at: Tensor) -> HookFunction:
    def function(activation: Tensor) -> None:
        rows = torch.arange(len(at), device=activation.device)
        if site.name == "v":
            into.append(activation.detach().clone())
        elif site.row.axes[0] == "pos":
            into.append(activation[rows, at].detach())
        else:  # [row, head, dest_pos, src_pos]
            into.append(activation[rows, :, at].detach())

    return function
