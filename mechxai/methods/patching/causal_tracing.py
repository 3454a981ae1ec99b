"""Causal tracing: add noise to the subject's embeddings, restore one clean activation at a time, measure recovery."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import AddNoise, Intervention, Patch
from mechxai.core.errors import ConfigError, SiteError, unknown
from mechxai.core.grid import Axes, Axis, Grid, Position
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, Metric, as_metric
from mechxai.core.result import Result
from mechxai.core.site import Site
from mechxai.engine.contrast import Baselines, baseline, with_reference
from mechxai.engine.execution import Execution
from mechxai.engine.multi_sweep import distinct_notes, plan_sweeps, run_sweeps, total_cost
from mechxai.engine.plan import Plan
from mechxai.engine.run import Outcome
from mechxai.engine.sources import RunSource, mean_source
from mechxai.engine.sweep import Cell, Sweep
from mechxai.methods.patching._lib.sweep_result import summarise
from mechxai.model.hooked_model import HookedModel

_EMBED = Site("embed")


@final
@register(
    MethodCard(
        name="causal_tracing",
        family="patching",
        kind="patching",
        question="Where does the model recall what it knows of the subject?",
        cost="noise draws x (one forward pass per cell and prompt), less what the engine saves",
        source="Meng et al. 2022 (arXiv 2202.05262), section 2",
        pros="needs no corrupted prompt",
        cons="noise leaves the distribution (Zhang and Nanda 2023 prefer token replacement); windows inflate effects",
    )
)
@dataclass(frozen=True)
class CausalTracing(Method):
    """Adds Gaussian noise to the subject's token embeddings, then restores one clean activation at a time.

    The corrupted run of the result is the clean prompt with noise; the batch's corrupted prompts are not used.

    Attributes:
        site: the activations to restore: ``resid_pre``, ``resid_post``, ``mlp_out``, ``attn_out`` ...
        over: axes of the sweep; ``layer`` must be among them.
        subject: role whose tokens get the noise, from its first to its last (tasks with subjects: facts, sva).
        noise: standard deviation of the noise, in units of the standard deviation of these prompts' token embeddings
            (Meng et al.: 3, over a corpus).
        n_noise: noise draws to average (Meng et al.: 10).
        window: layers restored together, centred on the cell's layer (Meng et al.: 10 for MLP and attention, 1 for
            states). A window above 1 shows joint effects; the result states it.
        metric: a name, a `Metric`, or a function; Meng et al. use the answer's probability.
        layers, pos: what to sweep; all by default.
        seed: seed of the noise.
    """

    in_waves: ClassVar[bool] = True

    site: str = "resid_pre"
    over: Sequence[Axis] = ("layer", "pos")
    subject: str = "SUBJECT"
    noise: float = 3.0
    n_noise: int = 10
    window: int = 1
    metric: AnyMetric = "prob"
    layers: Sequence[int] | None = None
    pos: Sequence[Position] | None = None
    seed: int = 0

    def _check_fields(self) -> None:
        for name in ("n_noise", "window"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        as_metric(self.metric)
        if "layer" not in self.over:
            raise ConfigError(f"Causal tracing sweeps layers, but over is {self.over}", fix="Add 'layer' to over")
        self._grid()

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """Sweeps the restored activations and returns how much of the clean behaviour each brings back.

        Returns:
            As `ActivationPatching`, averaged over noise draws; ``recovered`` is 0 for the run with noise and 1 for the
            clean run.

        Raises:
            SiteError: a subject role that the batch lacks, or a site that the model lacks.

        Cost: `n_noise` sweeps, and one pass per prompt for the embeddings' standard deviation.
        """
        metric, batch = as_metric(self.metric), batch.to(model.device)
        metric.check(batch)
        subject = self._subject_mask(batch)
        axes, cells = self._cells(model, batch, metric)
        Sweep(batch, "clean", cells, metric).check(model)
        batch = with_reference(model, batch, metric)
        axes, cells = self._cells(model, batch, metric)
        std = self.noise * mean_source(model, batch, run="clean", sites=[_EMBED], per_position=False).stds[_EMBED]
        sweeps = [
            Sweep(batch, "clean", cells, metric, self._noise_on(subject, draw, std)) for draw in range(self.n_noise)
        ]
        labelled = [(f"tracing, draw {draw} of {self.n_noise}", sweep) for draw, sweep in enumerate(sweeps, start=1)]
        draws = run_sweeps(model, labelled, execution)
        corrupted = [
            outcome.runs["base"]
            if "base" in outcome.runs
            else torch.from_numpy(baseline(model, batch, "clean", metric=metric, base=sweep.base))
            for sweep, outcome in zip(sweeps, draws, strict=True)
        ]
        clean = baseline(model, batch, "clean", metric=metric)
        both_runs = Baselines(metric, clean, torch.stack(corrupted).mean(0).numpy(), "denoise")
        return summarise(self, model, batch, axes=axes, outcome=_averaged(draws), baselines=both_runs)

    def plan(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Plan:  # noqa: B008 - frozen
        """The joint plan of the `n_noise` sweeps; runs nothing."""
        metric, batch = as_metric(self.metric), batch.to(model.device)
        subject, cells = self._subject_mask(batch), self._cells(model, batch, metric)[1]
        sweeps = [
            Sweep(batch, "clean", cells, metric, self._noise_on(subject, draw, 1.0)) for draw in range(self.n_noise)
        ]
        return plan_sweeps(model, sweeps, execution)

    def _noise_on(self, subject: torch.Tensor, draw: int, std: float) -> Cell:
        """One draw of noise on the subject's embeddings."""
        return (Intervention(_EMBED, AddNoise(std, self.seed * 1000 + draw, subject)),)

    def _grid(self) -> Grid:
        return Grid(self.site, self.over, layers=self.layers, pos=self.pos)

    def _subject_mask(self, batch: ContrastBatch) -> torch.Tensor:
        if self.subject not in batch.roles:
            raise SiteError(unknown("subject role", self.subject, batch.roles))
        last = batch.roles[self.subject]
        first = batch.roles.get(f"{self.subject}_first", last)
        index = torch.arange(batch.n_pos, device=last.device)[None]
        return (index >= first[:, None]) & (index <= last[:, None])  # [batch, pos]

    def _cells(self, model: HookedModel, batch: ContrastBatch, metric: Metric) -> tuple[Axes, list[Cell]]:
        axes, sites = self._grid().sites(model.architecture, batch)
        before, after = (self.window - 1) // 2, self.window // 2
        n_layers = model.architecture.n_layers
        windows = [
            range(max(0, site.layer - before), min(n_layers, site.layer + after + 1))
            for site in sites
            if site.layer is not None
        ]
        restored = tuple(dict.fromkeys(Site(self.site, layer) for window in windows for layer in window))
        patch = Patch(RunSource(model, batch, "clean", metric, restored))
        cells = [
            tuple(Intervention(Site(site.name, layer, site.head, site.pos), patch) for layer in window)
            for site, window in zip(sites, windows, strict=True)
        ]
        return axes, cells


def _averaged(draws: Sequence[Outcome]) -> Outcome:
    values = torch.stack([draw.values for draw in draws]).mean(0)
    level, floor = min(draw.level for draw in draws), max(draw.noise_floor for draw in draws)
    return Outcome(values, level, floor, total_cost(draws), distinct_notes(draws))
