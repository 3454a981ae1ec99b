"""Activations at the answer position of every prompt."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention
from mechxai.core.errors import ModelSupportError
from mechxai.core.site import Site
from mechxai.engine.contrast import Run
from mechxai.model.backends.editing import run_hooks
from mechxai.model.backends.hooks import HookFunction
from mechxai.model.backends.masking import attention_mask_of
from mechxai.model.hooked_model import HookedModel

_ROWS_AT_ONCE = 16


def answer_activations(
    model: HookedModel,
    batch: ContrastBatch,
    sites: Sequence[Site],
    *,
    run: Run,
    interventions: Sequence[Intervention],
) -> tuple[dict[Site, Tensor], Tensor]:
    """Each prompt's activations at its answer position, by whole site, and the logits there, ``[prompt, d_vocab]``.

    For patterns, the row of the answer position; for values, which the answer position reads everywhere, all positions.
    Cost: one forward pass per prompt.
    """
    parts: dict[Site, list[Tensor]] = {site: [] for site in sites}
    logits = []
    for rows, part in batch.parts(_ROWS_AT_ONCE):
        hooks = run_hooks(interventions, batch.layout, rows, mask=attention_mask_of(model.backend))
        for site in sites:
            hooks.setdefault(site.hook, []).append(_recording_hook(parts[site], site, part.answer_pos))
        with torch.no_grad():
            answer_logits = model.forward(
                part.tokens(run), lengths=part.lengths, hooks=hooks, at=part.answer_pos[:, None], sites=sites
            )
        logits.append(answer_logits[:, 0])
    missing = next((site for site, values in parts.items() if not values), None)
    if missing is not None:
        raise ModelSupportError(
            f"TransformerLens does not compute {missing} of {model.name} ({model.architecture.family})",
            fix="Use by='layer'" if missing.name == "result" else "Use a lens, or patching",
        )
    return {site: torch.cat(values) for site, values in parts.items()}, torch.cat(logits)


def _recording_hook(into: list[Tensor], site: Site, answer_pos: Tensor) -> HookFunction:
    def function(activation: Tensor) -> None:
        rows = torch.arange(len(answer_pos), device=activation.device)
        if site.name == "v":
            into.append(activation.detach().clone())
        elif site.row.axes[0] == "pos":
            into.append(activation[rows, answer_pos].detach())
        else:  # [row, head, dest_pos, src_pos]
            into.append(activation[rows, :, answer_pos].detach())

    return function
