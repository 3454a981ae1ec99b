"""Ablation: how much of the behaviour is lost when one place is taken out?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import AddNoise, Edit, Intervention, MeanAblate, ResampleAblate, ZeroAblate
from mechxai.core.errors import ConfigError, ShapeError, check_choice
from mechxai.core.grid import Grid, Position
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, Metric, as_metric
from mechxai.core.result import Result
from mechxai.core.site import Site
from mechxai.engine.contrast import RUNS, baselines, with_reference
from mechxai.engine.execution import Execution
from mechxai.engine.plan import Plan, plan
from mechxai.engine.run import run_sweep
from mechxai.engine.sources import RunSource, mean_source
from mechxai.engine.sweep import Sweep
from mechxai.methods.patching._lib.sweep_result import summarise
from mechxai.model.hooked_model import HookedModel

EDITS = ("zero", "mean", "resample", "noise")


@final
@register(
    MethodCard(
        name="ablation",
        family="patching",
        kind="ablation",
        question="Which components does the behaviour need?",
        cost="one forward pass per cell and prompt, less what the engine saves; mean and noise: one more per prompt",
        source="Wang et al. 2022 (arXiv 2211.00593); Miller et al. 2024 (arXiv 2407.08734) for the choices to state",
        pros="needs no counterpart prompt (zero, mean)",
        cons="zero leaves the distribution; later heads may make up for the loss (self-repair)",
    )
)
@dataclass(frozen=True)
class Ablation(Method):
    """Takes one place at a time out of the clean run.

    Attributes:
        site: a site name.
        over: axes of the map, from layer, pos, head, neuron.
        edit: ``zero``; ``mean`` over the reference prompts; ``resample``, the same place on another reference prompt
            drawn at random; ``noise``, Gaussian with `noise` times the site's own standard deviation.
        reference: which run mean, resample and noise take their values from: ``clean`` or ``corrupted`` (for the mean
            over an ABC set, as in Wang et al., use ``mx.tasks.ioi(corruption="abc")`` and ``corrupted``).
        per_position: mean per position; sensible when templates line up, and always so for patterns.
        noise: size of the noise, in standard deviations of the site.
        metric: a name, a `Metric`, or a function.
        layers, heads, pos, neurons: what to sweep; all by default.
        seed: of the draw of resample and noise.

    Source: Wang et al. 2022, section 3; Miller et al. 2024.
    """

    in_waves: ClassVar[bool] = True

    site: str = "z"
    over: Sequence[str] = ("layer", "head")
    edit: str = "mean"
    reference: str = "clean"
    per_position: bool = False
    noise: float = 1.0
    metric: AnyMetric = "logit_diff"
    layers: Sequence[int] | None = None
    heads: Sequence[int] | None = None
    pos: Sequence[Position] | None = None
    neurons: Sequence[int] | None = None
    seed: int = 0

    def _check_fields(self) -> None:
        for name, allowed in (("edit", EDITS), ("reference", RUNS)):
            check_choice(name, getattr(self, name), allowed)
        as_metric(self.metric)
        self._grid()

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """The loss that every ablation causes.

        Returns:
            As `ActivationPatching`; ``recovered`` is the share of the clean-corrupted gap that the ablation removes:
            0 nothing, 1 as much as corrupting the prompt.

        Raises:
            SiteError, ModelSupportError, ShapeError, NumericsError: as `ActivationPatching`.
            ConfigError: resample with one prompt.

        Cost: `plan` says; two baseline passes and, but for zero, one reference pass per prompt.
        """
        metric, batch = as_metric(self.metric), batch.to(model.device)
        metric.check(batch)
        axes, sites = self._grid().sites(model.architecture, batch)
        Sweep(batch, "clean", [(Intervention(site, ZeroAblate()),) for site in sites], metric).check(model)
        self._check_reference(batch)
        batch = with_reference(model, batch, metric)
        cells = [
            (Intervention(site, edit),)
            for site, edit in zip(sites, self._edits(model, batch, sites, metric=metric), strict=True)
        ]
        outcome = run_sweep(model, Sweep(batch, "clean", cells, metric), execution, what=f"ablating {self.site}")
        known = baselines(model, batch, metric, direction="noise", known=outcome.runs)
        return summarise(self, model, batch, axes=axes, outcome=outcome, baselines=known)

    def plan(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Plan:  # noqa: B008 - frozen
        """How the sweep would be run and what it would cost; runs nothing."""
        _, sites = self._grid().sites(model.architecture, batch)
        cells = [(Intervention(site, ZeroAblate()),) for site in sites]
        return plan(model, Sweep(batch, "clean", cells, as_metric(self.metric)), execution)

    def _grid(self) -> Grid:
        return Grid(self.site, self.over, layers=self.layers, heads=self.heads, pos=self.pos, neurons=self.neurons)

    def _check_reference(self, batch: ContrastBatch) -> None:
        if self.edit == "resample" and len(batch) < 2:
            raise ConfigError(
                "edit='resample' takes values from other prompts",
                got="one prompt",
                fix="give more prompts, or use edit='mean' or 'zero'",
            )
        aligned = bool((batch.lengths == batch.lengths[0]).all())
        if not aligned and (self.edit == "resample" or self.per_position):
            raise ShapeError(
                f"edit={self.edit!r} takes values from the same position of other prompts",
                got="prompts of different length",
                fix="use prompts of one template, or edit='mean' with per_position=false",
            )

    def _edits(
        self, model: HookedModel, batch: ContrastBatch, sites: Sequence[Site], *, metric: Metric
    ) -> Sequence[Edit]:
        whole = tuple(dict.fromkeys(site.whole for site in sites))
        if self.edit == "zero":
            return [ZeroAblate()] * len(sites)
        if self.edit == "resample":
            source = RunSource(model, batch, self.reference, metric, whole).rows(slice(None))
            return [ResampleAblate(source, self._choice(len(batch)))] * len(sites)
        mean = mean_source(
            model,
            batch,
            run=self.reference,
            sites=whole,
            per_position=self.per_position or "pattern" in self.site or "scores" in self.site,
        )
        if self.edit == "mean":
            return [MeanAblate(mean)] * len(sites)
        noisy = {site: AddNoise(self.noise * mean.stds[site], self.seed) for site in whole}
        return [noisy[site.whole] for site in sites]

    def _choice(self, n_prompts: int) -> tuple[int, ...]:
        """For each prompt another one: a random cyclic order, so that no prompt is its own reference."""
        order = torch.randperm(n_prompts, generator=torch.Generator().manual_seed(self.seed))
        choice = torch.empty_like(order)
        choice[order] = order.roll(1)
        return tuple(choice.tolist())
