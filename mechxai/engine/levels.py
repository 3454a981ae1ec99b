"""Levels 0 and 1, on jobs: every cell on every prompt of the job, every position run.

Level 0 `hooked`: cells stacked along the batch, a full pass each. Any model, any site, any edit; the oracle.
Level 1 `wave`: one pass that starts with the base rows; at each block's input the cells that enter there join as copies
of the base rows, so that no cell repeats the layers before its own.
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
from mechxai.model.hooked_model import HookedModel
from mechxai.model.readout import as_float


@dataclass
class _Rows:
    """Which edits touch which rows at each hook; rows come in groups of one per prompt."""

    n_prompts: int
    edits: dict[str, list[tuple[slice, Intervention]]] = field(default_factory=dict)

    def add(self, group: int, cell: Cell) -> None:
        rows = slice(group * self.n_prompts, (group + 1) * self.n_prompts)
        for one in cell:
            self.edits.setdefault(one.site.hook, []).append((rows, one))


def run_hooked(model: HookedModel, job: SweepSlice) -> Float[Tensor, "cell batch"]:
    """Level 0: the metric of each cell and prompt."""
    n_groups = len(job.cells)
    rows = _Rows(len(job.batch))
    for group, cell in enumerate(job.cells):
        rows.add(group, job.base)
        rows.add(group, cell)
    hooks: dict[str, list[HookFunction]] = {hook: [_editing(job, found)] for hook, found in rows.edits.items()}
    return _scores(model, job, hooks, n_start=n_groups, n_groups=n_groups)


def run_wave(model: HookedModel, job: SweepSlice) -> Float[Tensor, "cell batch"]:
    """Level 1: the metric of each cell and prompt, in the order of ``job.cells``."""
    if model.backend.masks_rows and len(job.batch) > 1:
        # its masks have a row per starting prompt: one prompt at a time
        return torch.cat([run_wave(model, job.rows(slice(i, i + 1))) for i in range(len(job.batch))], 1)
    early = [index for index, cell in enumerate(job.cells) if entry_layer(cell) < 0]
    if not early or len(early) == len(job.cells) or not model.backend.masks_rows:
        return _wave(model, job)
    late = [index for index in range(len(job.cells)) if index not in set(early)]
    scores = torch.cat([_wave(model, job.only(early)), _wave(model, job.only(late))])
    return scores[torch.tensor([*early, *late], device=scores.device).argsort()]


def _wave(model: HookedModel, job: SweepSlice) -> Tensor:
    order = sorted(range(len(job.cells)), key=lambda index: (entry_layer(job.cells[index]), index))
    entries = [entry_layer(job.cells[index]) for index in order]
    n_layers = model.architecture.n_layers
    n_start = 1 + sum(entry < 0 for entry in entries)  # the base rows and the cells that begin before block 0
    rows = _Rows(len(job.batch))
    for group, index in enumerate(order, start=1):
        rows.add(group, job.cells[index])
    hooks: dict[str, list[HookFunction]] = {}
    for layer in range(n_layers):
        joining = sum(entry == layer for entry in entries)
        if joining:
            hooks.setdefault(Site("resid_pre", layer).hook, []).append(_joining(len(job.batch), joining))
    late = sum(entry >= n_layers for entry in entries)
    if late:  # cells that enter after the last block join at its output
        hooks.setdefault(Site("resid_post", n_layers - 1).hook, []).append(_joining(len(job.batch), late))
    for one in job.base:
        hooks.setdefault(one.site.hook, []).append(_everywhere(job, one))
    for hook, found in rows.edits.items():
        hooks.setdefault(hook, []).append(_editing(job, found))
    scores = _scores(model, job, hooks, n_start=n_start, n_groups=1 + len(order))[1:]
    return scores[torch.tensor(order, device=scores.device).argsort()]


def _scores(
    model: HookedModel, job: SweepSlice, hooks: dict[str, list[HookFunction]], *, n_start: int, n_groups: int
) -> Tensor:
    tokens, lengths = run_tokens(job.batch, job.run, job.metric)
    at = job.metric.positions(job.batch)
    with torch.no_grad():
        logits = model.forward(
            tokens.repeat(n_start, 1),
            lengths=lengths.repeat(n_start),
            hooks=hooks,
            at=None if at is None else at.repeat(n_groups, 1),
            sites=job.sites,
        )
        groups = logits.unflatten(0, (n_groups, len(job.batch)))  # [group, batch, k, d_vocab]
        return torch.stack([job.metric.score(as_float(group), job.batch) for group in groups])


def _editing(job: SweepSlice, found: list[tuple[slice, Intervention]]) -> HookFunction:
    return lambda activation: edited(activation, found, job.batch.layout)


def _everywhere(job: SweepSlice, one: Intervention) -> HookFunction:
    def function(activation: Tensor) -> Tensor:
        n_prompts = len(job.batch)
        groups = [slice(start, start + n_prompts) for start in range(0, len(activation), n_prompts)]
        return edited(activation, [(rows, one) for rows in groups], job.batch.layout)

    return function


def _joining(n_prompts: int, n_cells: int) -> HookFunction:
    def function(residual: Tensor) -> Tensor:
        return torch.cat([residual, residual[:n_prompts].repeat(n_cells, 1, 1)])

    return function
