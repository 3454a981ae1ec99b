"""Levels 2 `suffix` and 3 `packed`: rows join at their own layer and run only their last positions.

The prefix comes from a recorded unedited run. The model's own modules run on both backends, so no line here depends on
the architecture. Level 3 is level 2 with weights laid out once for fast matrix products, and with activation functions
computed by one kernel where a library uses several.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.edit import Intervention
from mechxai.core.exclusive import exclusive
from mechxai.core.site import Site
from mechxai.core.site_table import IN_MLP
from mechxai.engine.affected_range import entry_layer
from mechxai.engine.chunk import Chunk, metric_values
from mechxai.engine.row_edits import EditFunction, RowEdit, Window, edit_functions, edits_by_site
from mechxai.engine.waves import Wave
from mechxai.model.backends.base import modules
from mechxai.model.backends.hooks import HookFunction, gathered
from mechxai.model.backends.masking import attention_mask_of
from mechxai.model.backends.passes import residuals_before, resume
from mechxai.model.backends.prefix import JoiningRows
from mechxai.model.dense.weight_layout import one_kernel


def run_suffix(chunk: Chunk, wave: Wave) -> Float[Tensor, " row"]:
    """Level 2: the metric of each row of a wave."""
    return _Suffix(chunk, wave).values()


def run_packed(chunk: Chunk, wave: Wave) -> Float[Tensor, " row"]:
    """Level 3: the metric of each row of a wave, with the weights laid out once."""
    with exclusive(chunk.model):
        chunk.model.optimize_layout()
        with one_kernel(modules(chunk.model.backend)):
            return run_suffix(chunk, wave)


def _is_in_mlp_or_later(site: Site, layer: int) -> bool:
    return site.layer == layer and site.row.stage >= IN_MLP


class _Suffix:
    def __init__(self, chunk: Chunk, wave: Wave) -> None:
        self.chunk, self.wave = chunk, wave
        self.model, self.recorded = chunk.model, chunk.recorded
        self.n_layers = self.model.architecture.n_layers
        self.mask = attention_mask_of(self.model.backend)
        self.window = Window(wave.start, wave.stop)
        entries = [entry_layer(chunk.sweep.cells[cell]) for cell in wave.cells]
        self.order = sorted(range(len(wave)), key=lambda row: entries[row])
        self.entries = [min(self.n_layers, max(0, entries[row])) for row in self.order]
        self.early = sum(entry < 0 for entry in entries)  # rows edited before block 0
        self.prompts = [wave.prompts[row] - chunk.prompts.start for row in self.order]
        self.cells = [self.recorded.cells[wave.cells[row]] for row in self.order]

    def values(self) -> Tensor:
        """The metric of each row, in the order of the wave."""
        edits = edits_by_site(self.cells, self.prompts, self.chunk.batch)
        rows = self._joining_rows(edits)
        after = {
            site.hook: [_edit_hook(functions)]
            for site, row_edits in edits.items()
            if site.row.entry != "embed"
            and (functions := edit_functions(row_edits, self.window, self.mask, device=self.model.device))
        }
        at, sites = self._at(), [*edits, *(intervention.site.whole for intervention in self.recorded.edits)]
        if at is not None and self._can_narrow(sites):
            after.setdefault(self._middle.hook, []).append(partial(gathered, at=at))
            at = None
        final = resume(self.model, rows, before=self._base_hooks(rows), after=after, sites=sites, at=at)
        values = self._metric(final, rows.prompts)
        return values[torch.tensor(self.order, device=values.device).argsort()]

    @property
    def _middle(self) -> Site:
        return Site("resid_mid", self.n_layers - 1)

    def _can_narrow(self, sites: Sequence[Site]) -> bool:
        """Whether the last MLP can run on the positions that the metric reads only.

        This needs a hook point on the residual stream before the MLP, and no edit or join after it.
        """
        later = any(site.row.entry == "end" or _is_in_mlp_or_later(site, self.n_layers - 1) for site in sites)
        backend = self.model.backend
        has_hook = self._middle.hook in backend.hooks and self._middle.name not in backend.in_place
        return has_hook and not later and max(self.entries) < self.n_layers

    def _joining_rows(self, edits: dict[Site, list[RowEdit]]) -> JoiningRows:
        base = self.recorded.base
        layers = sorted(set(self.entries))
        joins = [(layer, self.entries.count(layer)) for layer in layers]
        prompts = torch.tensor(self.prompts, device=self.model.device)
        early = None
        if self.early:
            early = embedded_rows(self.chunk, edits, self.prompts[: self.early])
        return JoiningRows(
            base.kept, base.residuals, prompts, joins, base.tokens, self.wave.start, self.wave.stop, early
        )

    def _base_hooks(self, rows: JoiningRows) -> dict[str, list[HookFunction]]:
        """Hooks that make the interventions of the base run in the rows that have joined before each."""
        hooks: dict[str, list[HookFunction]] = {}
        for intervention in self.recorded.edits:
            site = intervention.site
            has_rows = (
                site.layer is not None
                and site.layer >= rows.first_layer
                and site.hook != Site("resid_pre", rows.first_layer).hook
            )
            if has_rows or site.row.entry == "end":
                hooks.setdefault(site.hook, []).append(self._on_present_rows(intervention))
        return hooks

    def _on_present_rows(self, intervention: Intervention) -> HookFunction:
        def function(activation: Tensor) -> Tensor | None:
            present = self.prompts[: len(activation)]
            return _edit_hook(base_edit_functions(self.chunk, intervention, present, window=self.window))(activation)

        return function

    def _at(self) -> Tensor | None:
        at = self.chunk.sweep.metric.positions(self.chunk.batch)
        return None if at is None else at[self.prompts].to(self.model.device) - self.wave.start

    def _metric(self, final: Tensor, prompts: Tensor) -> Tensor:
        if self._at() is None:  # the metric reads every position; positions before the window are the base run's
            all_positions = self.recorded.base.final[prompts].clone()
            all_positions[:, self.wave.start : self.wave.stop] = final
            final = all_positions
        return metric_values(self.model, self.chunk.sweep.metric, self.chunk.batch, final=final, prompts=prompts)


def embedded_rows(chunk: Chunk, edits: Mapping[Site, Sequence[RowEdit]], prompts: Sequence[int]) -> Tensor:
    """The residual stream before block 0 of rows with edits before it, ``[row, pos, d_model]``.

    Args:
        chunk: the chunk of prompts.
        edits: whole site -> edits; edits within blocks are ignored.
        prompts: the number of each row's prompt in the chunk.
    """
    recorded, device = chunk.recorded, chunk.model.device
    window = Window(0, recorded.base.tokens.shape[1])
    hooks: dict[str, list[HookFunction]] = {}
    mask = attention_mask_of(chunk.model.backend)
    for intervention in recorded.edits:
        if intervention.site.row.entry == "embed":
            hooks.setdefault(intervention.site.hook, []).append(
                _edit_hook(base_edit_functions(chunk, intervention, prompts, window=window))
            )
    for site, row_edits in edits.items():
        if site.row.entry == "embed":
            hooks.setdefault(site.hook, []).append(_edit_hook(edit_functions(row_edits, window, mask, device=device)))
    return residuals_before(chunk.model, recorded.base.tokens[torch.tensor(prompts, device=device)], hooks)


def base_edit_functions(
    chunk: Chunk, intervention: Intervention, prompts: Sequence[int], *, window: Window
) -> list[EditFunction]:
    """Functions that make an intervention of the base run in rows of these prompts."""
    sites = edits_by_site([(intervention,)] * len(prompts), prompts, chunk.batch)
    mask, device = attention_mask_of(chunk.model.backend), chunk.model.device
    return [function for edits in sites.values() for function in edit_functions(edits, window, mask, device=device)]


def _edit_hook(edits: Sequence[EditFunction]) -> HookFunction:
    def function(activation: Tensor) -> Tensor:
        new = activation.clone()
        for edit in edits:
            edit(new)
        return new

    return function
