"""Ablation: replace one activation at a time by zero, a mean, another prompt's or noise, and measure the loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import AddNoise, Edit, Intervention, MeanAblate, ResampleAblate, ZeroAblate
from mechxai.core.errors import ConfigError, ShapeError
from mechxai.core.grid import Axis, Grid, Position
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, Metric, as_metric
from mechxai.core.result import Result
from mechxai.core.site import Site
from mechxai.engine.contrast import Run, baselines, with_reference
from mechxai.engine.execution import Execution
from mechxai.engine.plan import Plan, plan
from mechxai.engine.run import run_sweep
from mechxai.engine.sources import RunSource, mean_source
from mechxai.engine.sweep import Sweep
from mechxai.methods.patching._lib.sweep_result import summarise
from mechxai.model.hooked_model import HookedModel

AblationEdit = Literal["zero", "mean", "resample", "noise"]


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
    """Ablates one activation at a time in the clean run and measures the change in the metric.

    Attributes:
        site: a site name.
        over: axes of the sweep, from layer, pos, head, neuron.
        edit: ``zero``; ``mean`` over the reference prompts; ``resample``, the same activation of another reference
            prompt, drawn at random; ``noise``, added Gaussian noise of `noise` times the site's standard deviation.
        reference: the run that supplies mean, resampled activations and standard deviation: ``clean`` or ``corrupted``
            (for the mean over an ABC set, as in Wang et al., use ``mx.tasks.ioi(corruption="abc")`` and ``corrupted``).
        per_position: take the mean per position; sensible when templates line up. Attention patterns always use it.
        noise: size of the noise, in standard deviations of the site.
        metric: a name, a `Metric`, or a function.
        layers, heads, pos, neurons: what to sweep; all by default.
        seed: seed of the resampling order and of the noise.

    Source: Wang et al. 2022, section 3; Miller et al. 2024.
    """

    in_waves: ClassVar[bool] = True

    site: str = "z"
    over: Sequence[Axis] = ("layer", "head")
    edit: AblationEdit = "mean"
    reference: Run = "clean"
    per_position: bool = False
    noise: float = 1.0
    metric: AnyMetric = "logit_diff"
    layers: Sequence[int] | None = None
    heads: Sequence[int] | None = None
    pos: Sequence[Position] | None = None
    neurons: Sequence[int] | None = None
    seed: int = 0

    def _check_fields(self) -> None:
        as_metric(self.metric)
        self._grid()

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """Sweeps the ablations and returns the metric after each.

        Returns:
            As `ActivationPatching`; ``recovered`` is the share of the clean-corrupted gap that the ablation removes:
            0 for no change, 1 for as much as corrupting the prompt.

        Raises:
            SiteError, ModelSupportError, ShapeError, NumericsError: as `ActivationPatching`.
            ConfigError: resample with a single prompt.

        Cost: two baseline passes per prompt, one reference pass per prompt except for ``zero``, and the sweep (see
        `plan`).
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
        outcome = run_sweep(model, Sweep(batch, "clean", cells, metric), execution, label=f"ablating {self.site}")
        both_runs = baselines(model, batch, metric, direction="noise", known=outcome.runs)
        return summarise(self, model, batch, axes=axes, outcome=outcome, baselines=both_runs)

    def plan(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Plan:  # noqa: B008 - frozen
        """The plan of the sweep and its estimated cost; runs nothing."""
        _, sites = self._grid().sites(model.architecture, batch)
        cells = [(Intervention(site, ZeroAblate()),) for site in sites]
        return plan(model, Sweep(batch, "clean", cells, as_metric(self.metric)), execution)

    def _grid(self) -> Grid:
        return Grid(self.site, self.over, layers=self.layers, heads=self.heads, pos=self.pos, neurons=self.neurons)

    def _check_reference(self, batch: ContrastBatch) -> None:
        if self.edit == "resample" and len(batch) < 2:
            raise ConfigError(
                "edit='resample' takes activations from other prompts, but the batch has one prompt",
                fix="Give more prompts, or use edit='mean' or 'zero'",
            )
        aligned = bool((batch.lengths == batch.lengths[0]).all())
        if not aligned and (self.edit == "resample" or self.per_position):
            raise ShapeError(
                f"edit={self.edit!r} takes activations from the same position of other prompts, "
                "but the prompts differ in length",
                fix="Use prompts of one template, or edit='mean' with per_position=false",
            )

    def _edits(
        self, model: HookedModel, batch: ContrastBatch, sites: Sequence[Site], *, metric: Metric
    ) -> Sequence[Edit]:
        whole_sites = tuple(dict.fromkeys(site.whole for site in sites))
        if self.edit == "zero":
            return [ZeroAblate()] * len(sites)
        if self.edit == "resample":
            source = RunSource(model, batch, self.reference, metric, whole_sites).rows(slice(None))
            return [ResampleAblate(source, self._donors(len(batch)))] * len(sites)
        mean = mean_source(
            model,
            batch,
            run=self.reference,
            sites=whole_sites,
            per_position=self.per_position or "pattern" in self.site or "scores" in self.site,
        )
        if self.edit == "mean":
            return [MeanAblate(mean)] * len(sites)
        noisy = {site: AddNoise(self.noise * mean.stds[site], self.seed) for site in whole_sites}
        return [noisy[site.whole] for site in sites]

    def _donors(self, n_prompts: int) -> tuple[int, ...]:
        """For each prompt, the prompt that its activations come from: a random cycle, so never the prompt itself."""
        order = torch.randperm(n_prompts, generator=torch.Generator().manual_seed(self.seed))
        donors = torch.empty_like(order)
        donors[order] = order.roll(1)
        return tuple(donors.tolist())
