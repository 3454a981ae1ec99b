"""Levels 2 and 3: rows join at their own layer and run only their last positions, the prefix coming from a record.

No line here knows an architecture: the model's own modules run, on both backends. Level 3 is level 2 with the weights
laid out once as the matrix products want them, and one kernel for an activation function that libraries make of many.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.edit import Intervention
from mechxai.core.site import Site
from mechxai.core.site_table import IN_MLP
from mechxai.engine.affected_range import entry_layer
from mechxai.engine.chunk import Chunk, scored
from mechxai.engine.plan import Wave
from mechxai.engine.row_edits import RowEdit, Step, Window, placed, steps
from mechxai.model.backends.base import modules
from mechxai.model.backends.hooks import HookFunction, gathered
from mechxai.model.backends.passes import residuals_before, resume
from mechxai.model.backends.prefix import JoiningRows
from mechxai.model.dense.weight_layout import one_kernel


def run_suffix(chunk: Chunk, wave: Wave) -> Float[Tensor, " row"]:
    """Level 2: the metric of each row of a wave."""
    return _Suffix(chunk, wave).values()


def run_packed(chunk: Chunk, wave: Wave) -> Float[Tensor, " row"]:
    """Level 3: the same, after the weights have been laid out."""
    chunk.model.optimize_layout()
    with one_kernel(modules(chunk.model.backend)):
        return run_suffix(chunk, wave)


def _is_beyond(site: Site, layer: int) -> bool:
    return site.layer == layer and site.row.stage >= IN_MLP


class _Suffix:
    def __init__(self, chunk: Chunk, wave: Wave) -> None:
        self.chunk, self.wave = chunk, wave
        self.model, self.recorded = chunk.model, chunk.recorded
        self.n_layers = self.model.architecture.n_layers
        self.window = Window(wave.start, wave.stop)
        entries = [entry_layer(chunk.sweep.cells[cell]) for cell in wave.cells]
        self.order = sorted(range(len(wave)), key=lambda row: entries[row])
        self.entries = [min(self.n_layers, max(0, entries[row])) for row in self.order]
        self.early = sum(entry < 0 for entry in entries)  # rows edited before block 0
        self.prompts = [wave.prompts[row] - chunk.prompts.start for row in self.order]
        self.cells = [self.recorded.cells[wave.cells[row]] for row in self.order]

    def values(self) -> Tensor:
        """The metric of each row, in the order of the wave."""
        edits = placed(self.cells, self.prompts, self.chunk.batch)
        rows = self._joining(edits)
        after = {
            site.hook: [_making(made)]
            for site, found in edits.items()
            if site.row.entry != "embed" and (made := steps(found, self.window, device=self.model.device))
        }
        at, sites = self._at(), [*edits, *(one.site.whole for one in self.recorded.edits)]
        if at is not None and self._narrows(sites):
            after.setdefault(self._middle.hook, []).append(partial(gathered, at=at))
            at = None
        final = resume(self.model, rows, before=self._base_hooks(rows), after=after, sites=sites, at=at)
        values = self._scored(final, rows.prompts)
        return values[torch.tensor(self.order, device=values.device).argsort()]

    @property
    def _middle(self) -> Site:
        return Site("resid_mid", self.n_layers - 1)

    def _narrows(self, sites: Sequence[Site]) -> bool:
        """Whether the last MLP can be given the positions that the metric reads, and no others.

        It can where the residual stream passes through a hook point before it, and nothing is edited or joins after.
        """
        beyond = any(site.row.entry == "end" or _is_beyond(site, self.n_layers - 1) for site in sites)
        backend = self.model.backend
        passes = self._middle.hook in backend.hooks and self._middle.name not in backend.in_place
        return passes and not beyond and max(self.entries) < self.n_layers

    def _joining(self, edits: dict[Site, list[RowEdit]]) -> JoiningRows:
        base = self.recorded.base
        layers = sorted(set(self.entries))
        joins = [(layer, self.entries.count(layer)) for layer in layers]
        prompts = torch.tensor(self.prompts, device=self.model.device)
        given = None
        if self.early:
            given = embedded(self.chunk, edits, self.prompts[: self.early])
        return JoiningRows(
            base.kept, base.residuals, prompts, joins, base.tokens, self.wave.start, self.wave.stop, given
        )

    def _base_hooks(self, rows: JoiningRows) -> dict[str, list[HookFunction]]:
        """The base run's own interventions, in the rows that have already joined where each is made."""
        hooks: dict[str, list[HookFunction]] = {}
        for one in self.recorded.edits:
            site = one.site
            begun = (
                site.layer is not None
                and site.layer >= rows.first_layer
                and site.hook != Site("resid_pre", rows.first_layer).hook
            )
            if begun or site.row.entry == "end":
                hooks.setdefault(site.hook, []).append(self._on_present(one))
        return hooks

    def _on_present(self, one: Intervention) -> HookFunction:
        def function(activation: Tensor) -> Tensor | None:
            present = self.prompts[: len(activation)]
            return _making(base_steps(self.chunk, one, present, window=self.window))(activation)

        return function

    def _at(self) -> Tensor | None:
        at = self.chunk.sweep.metric.positions(self.chunk.batch)
        return None if at is None else at[self.prompts].to(self.model.device) - self.wave.start

    def _scored(self, final: Tensor, prompts: Tensor) -> Tensor:
        if self._at() is None:  # the metric reads every position: those before the window are the base run's
            every = self.recorded.base.final[prompts].clone()
            every[:, self.wave.start : self.wave.stop] = final
            final = every
        return scored(self.model, self.chunk.sweep.metric, self.chunk.batch, final=final, prompts=prompts)


def embedded(chunk: Chunk, edits: Mapping[Site, Sequence[RowEdit]], prompts: Sequence[int]) -> Tensor:
    """The residual stream before block 0 of rows that are edited before it, ``[row, pos, d_model]``.

    Args:
        chunk: the prompts.
        edits: whole site -> edits; those within blocks are left for later.
        prompts: the prompt of each row, counted in the chunk.
    """
    recorded, device = chunk.recorded, chunk.model.device
    whole = Window(0, recorded.base.tokens.shape[1])
    hooks: dict[str, list[HookFunction]] = {}
    for one in recorded.edits:
        if one.site.row.entry == "embed":
            hooks.setdefault(one.site.hook, []).append(_making(base_steps(chunk, one, prompts, window=whole)))
    for site, found in edits.items():
        if site.row.entry == "embed":
            hooks.setdefault(site.hook, []).append(_making(steps(found, whole, device=device)))
    return residuals_before(chunk.model, recorded.base.tokens[torch.tensor(prompts, device=device)], hooks)


def base_steps(chunk: Chunk, one: Intervention, prompts: Sequence[int], *, window: Window) -> list[Step]:
    """What makes an intervention of the base run in rows of these prompts."""
    found = placed([(one,)] * len(prompts), prompts, chunk.batch)
    return [step for edits in found.values() for step in steps(edits, window, device=chunk.model.device)]


def _making(made: Sequence[Step]) -> HookFunction:
    def function(activation: Tensor) -> Tensor:
        new = activation.clone()
        for step in made:
            step(new)
        return new

    return function
