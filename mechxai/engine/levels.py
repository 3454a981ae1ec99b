"""Levels 0 and 1: every cell on every prompt of a slice, every position.

Level 0 `hooked` stacks cells along the batch and runs a full pass for each. It takes any model, site and edit, and is
the reference for all other levels. Level 1 `wave` runs one pass that starts with the base rows. At each block's input,
the cells that enter there join as copies of the base rows, so that no cell repeats the layers before its own.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.edit import Intervention
from mechxai.core.site import Site
from mechxai.engine.affected_range import entry_layer
from mechxai.engine.sweep import Cell, run_tokens
from mechxai.engine.sweep_slice import SweepSlice
from mechxai.model.backends.editing import edited
from mechxai.model.backends.hooks import HookFunction
from mechxai.model.backends.masking import attention_mask_of
from mechxai.model.hooked_model import HookedModel
from mechxai.model.readout import as_float


@dataclass
class _Rows:
    """The edits at each hook and their rows; rows come in groups of one per prompt."""

    n_prompts: int
    edits: dict[str, list[tuple[slice, Intervention]]] = field(default_factory=dict)

    def add(self, group: int, cell: Cell) -> None:
        rows = slice(group * self.n_prompts, (group + 1) * self.n_prompts)
        for intervention in cell:
            self.edits.setdefault(intervention.site.hook, []).append((rows, intervention))


def run_hooked(model: HookedModel, part: SweepSlice) -> Float[Tensor, "cell batch"]:
    """Level 0: the metric of each cell and prompt."""
    n_groups = len(part.cells)
    rows = _Rows(len(part.batch))
    for group, cell in enumerate(part.cells):
        rows.add(group, part.base)
        rows.add(group, cell)
    hooks: dict[str, list[HookFunction]] = {
        hook: [_edit_hook(model, part, edits)] for hook, edits in rows.edits.items()
    }
    return _scores(model, part, hooks, n_start=n_groups, n_groups=n_groups)


def run_wave(model: HookedModel, part: SweepSlice) -> Float[Tensor, "cell batch"]:
    """Level 1: the metric of each cell and prompt, in the order of ``part.cells``."""
    if model.backend.masks_rows and len(part.batch) > 1:
        # attention masks have a row for each prompt that the pass starts with: run one prompt at a time
        return torch.cat([run_wave(model, part.rows(slice(i, i + 1))) for i in range(len(part.batch))], 1)
    early = [index for index, cell in enumerate(part.cells) if entry_layer(cell) < 0]
    if not early or len(early) == len(part.cells) or not model.backend.masks_rows:
        return _wave(model, part)
    late = [index for index in range(len(part.cells)) if index not in set(early)]
    scores = torch.cat([_wave(model, part.only(early)), _wave(model, part.only(late))])
    return scores[torch.tensor([*early, *late], device=scores.device).argsort()]


def _wave(model: HookedModel, part: SweepSlice) -> Tensor:
    order = sorted(range(len(part.cells)), key=lambda index: (entry_layer(part.cells[index]), index))
    entries = [entry_layer(part.cells[index]) for index in order]
    n_layers = model.architecture.n_layers
    n_start = 1 + sum(entry < 0 for entry in entries)  # the base rows and the cells that begin before block 0
    rows = _Rows(len(part.batch))
    for group, index in enumerate(order, start=1):
        rows.add(group, part.cells[index])
    hooks: dict[str, list[HookFunction]] = {}
    for layer in range(n_layers):
        joining = sum(entry == layer for entry in entries)
        if joining:
            hooks.setdefault(Site("resid_pre", layer).hook, []).append(_join_hook(len(part.batch), joining))
    late = sum(entry >= n_layers for entry in entries)
    if late:  # cells that enter after the last block join at its output
        hooks.setdefault(Site("resid_post", n_layers - 1).hook, []).append(_join_hook(len(part.batch), late))
    for intervention in part.base:
        hooks.setdefault(intervention.site.hook, []).append(_base_edit_hook(model, part, intervention))
    for hook, edits in rows.edits.items():
        hooks.setdefault(hook, []).append(_edit_hook(model, part, edits))
    scores = _scores(model, part, hooks, n_start=n_start, n_groups=1 + len(order))[1:]
    return scores[torch.tensor(order, device=scores.device).argsort()]


def _scores(
    model: HookedModel, part: SweepSlice, hooks: dict[str, list[HookFunction]], *, n_start: int, n_groups: int
) -> Tensor:
    tokens, lengths = run_tokens(part.batch, part.run, part.metric)
    at = part.metric.positions(part.batch)
    with torch.no_grad():
        logits = model.forward(
            tokens.repeat(n_start, 1),
            lengths=lengths.repeat(n_start),
            hooks=hooks,
            at=None if at is None else at.repeat(n_groups, 1),
            sites=part.sites,
        )
        groups = logits.unflatten(0, (n_groups, len(part.batch)))  # [group, batch, k, d_vocab]
        return torch.stack([part.metric.score(as_float(group), part.batch) for group in groups])


def _edit_hook(model: HookedModel, part: SweepSlice, edits: list[tuple[slice, Intervention]]) -> HookFunction:
    mask = attention_mask_of(model.backend)
    return lambda activation: edited(activation, edits, part.batch.layout, mask=mask)


def _base_edit_hook(model: HookedModel, part: SweepSlice, intervention: Intervention) -> HookFunction:
    mask = attention_mask_of(model.backend)

    def function(activation: Tensor) -> Tensor:
        n_prompts = len(part.batch)
        groups = [slice(start, start + n_prompts) for start in range(0, len(activation), n_prompts)]
        return edited(activation, [(rows, intervention) for rows in groups], part.batch.layout, mask=mask)

    return function


def _join_hook(n_prompts: int, n_cells: int) -> HookFunction:
    def function(residual: Tensor) -> Tensor:
        return torch.cat([residual, residual[:n_prompts].repeat(n_cells, 1, 1)])

    return function
