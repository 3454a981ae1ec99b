"""Attribution patching: a first-order estimate of the effect of patching every activation, from one gradient."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import final

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from mechxai.core.activations import Activations
from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, ModelSupportError
from mechxai.core.grid import Axes, Axis, Grid, Position
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, Metric, as_metric
from mechxai.core.result import Result, variable
from mechxai.core.site import Site
from mechxai.core.work_clock import work_seconds
from mechxai.engine.chunk import metric_values
from mechxai.engine.contrast import Baselines, Direction, baselines, with_reference
from mechxai.engine.execution import Execution
from mechxai.engine.finished import FinishedPieces
from mechxai.engine.progress import ProgressBar
from mechxai.engine.sweep import run_tokens
from mechxai.methods.circuits._lib.query_key_fix import QueryKeyFix
from mechxai.methods.result_parts import bounded, coordinates, run_info, shares_of_gap
from mechxai.model.graph.site_gradients import site_gradients
from mechxai.model.hooked_model import HookedModel

_ROWS_AT_ONCE = 16


@final
@register(
    MethodCard(
        name="attribution_patching",
        family="circuits",
        question="What is the effect of patching every activation, to first order?",
        cost="two forward passes and one backward per prompt, whatever the grid (with grad_drop: per layer)",
        source="Nanda 2023 (neelnanda.io/attribution-patching); Kramar et al. 2024 (arXiv 2403.00745)",
        pros="every site, position, head and neuron at once; any model",
        cons="first order: wrong where a softmax saturates; ActivationPatching is exact",
    )
)
@dataclass(frozen=True)
class AttributionPatching(Method):
    """``(clean - corrupted) . d metric / d activation``, the gradient taken in the run that would be patched.

    Attributes:
        site: a site name (``resid_pre``, ``z`` ...).
        over: axes of the map, from layer, pos, head, neuron; also the order of the result's dims.
        direction: ``denoise`` takes the gradient in the corrupted run (the effect of restoring clean activations),
            ``noise`` in the clean run.
        metric: the metric.
        layers: the layers; all by default. Likewise ``heads``, ``neurons``.
        pos: positions or roles; all by default. Off the axes, it fixes one position per cell.
        qk_fix: for ``q`` and ``k``, computes the change of the pattern exactly and takes only the rest to first order,
            so that a saturated softmax hides nothing.
        grad_drop: averages over layers the *size* of the effect without the gradient through that layer's output, so
            that a direct effect and one through a layer cannot cancel. With ``qk_fix`` this is AtP*.

    Source: as in the card; signs are those of activation patching's effect, positive where it supports the behaviour
    (with ``grad_drop`` there is none).
    """

    site: str = "z"
    over: Sequence[Axis] = ("layer", "head")
    direction: Direction = "denoise"
    metric: AnyMetric = "logit_diff"
    layers: Sequence[int] | None = None
    heads: Sequence[int] | None = None
    pos: Sequence[Position] | None = None
    neurons: Sequence[int] | None = None
    qk_fix: bool = False
    grad_drop: bool = False

    def _check_fields(self) -> None:
        as_metric(self.metric)
        self._grid()
        if self.qk_fix and self.site not in ("q", "k"):
            raise ConfigError(
                f"qk_fix=true does not apply to site={self.site}, which no softmax follows",
                allowed="site=q or site=k",
                fix="Use qk_fix=false for other sites",
            )

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """The estimated effect of every patch.

        Returns:
            ``value`` [*over*], the estimated effect on the metric with 95 % intervals over prompts, ``per_example``
            [prompt, *over*], ``recovered`` [*over*], its share of the clean-corrupted gap, and the baselines. With
            ``grad_drop`` the values are sizes and there is no ``recovered``.

        Raises:
            SiteError: a site, layer, head, neuron or position that does not exist.
            ModelSupportError: a site this backend cannot edit; ``qk_fix`` on blocks without a dense form,
                ``grad_drop`` on a model of one layer.
            ShapeError: answers the metric cannot score.
        """
        started = work_seconds()
        metric, batch = as_metric(self.metric), batch.to(model.device)
        metric.check(batch)
        axes, cells = self._grid().sites(model.architecture, batch)
        whole = list(dict.fromkeys(site.whole for site in cells))
        for site in (*whole, *self._dropped_sites(model)):
            model.backend.check(site, editing=True)
        if self.qk_fix:
            QueryKeyFix.of(model, batch.layout)
        batch = with_reference(model, batch, metric)
        contrast = baselines(model, batch, metric, direction=self.direction)
        estimates: list[Tensor] = []
        with (
            FinishedPieces(execution.cells, "attribution patching", self, model, batch) as finished,
            ProgressBar("attribution patching", len(batch), shown=execution.progress, unit="prompts") as bar,
        ):
            for rows, sub_batch in batch.parts(_ROWS_AT_ONCE):
                estimate = partial(self._estimates, model, sub_batch, metric, whole=whole, cells=cells)
                estimates.append(finished.take(rows.start, estimate))
                bar.advance(len(sub_batch))
        per_example = torch.cat(estimates).numpy().reshape(len(batch), *(len(values) for values in axes.values()))
        n_runs = len(self._dropped_layers(model))
        cost = {
            "forward_passes": (3.0 + n_runs) * len(batch),
            "backward_passes": float(n_runs * len(batch)),
            "seconds": work_seconds() - started,
        }
        data = _variables(per_example, axes, contrast, sizes=self.grad_drop)
        info = run_info(self, model, batch, cost=cost, notes=contrast.notes)
        return Result(xr.Dataset(data, coords=coordinates(self, batch, axes)), info)

    def _grid(self) -> Grid:
        return Grid(self.site, self.over, layers=self.layers, heads=self.heads, pos=self.pos, neurons=self.neurons)

    def _dropped_layers(self, model: HookedModel) -> list[int | None]:
        """The layers that gradients leave out, one per run; None for leaving out none."""
        n_layers = model.architecture.n_layers
        if not self.grad_drop:
            return [None]
        if n_layers < 2:
            raise ModelSupportError(
                f"grad_drop=true needs two layers or more, but {model.name} has one, without which no gradient is left",
                fix="Use grad_drop=false",
            )
        return list(range(n_layers))

    def _dropped_sites(self, model: HookedModel) -> list[Site]:
        """The outputs of the layers that gradients leave out."""
        layers = self._dropped_layers(model)
        return [site for layer in layers if layer is not None for site in _output_sites(model, layer)]

    def _estimates(
        self, model: HookedModel, batch: ContrastBatch, metric: Metric, *, whole: Sequence[Site], cells: Sequence[Site]
    ) -> Float[Tensor, "prompt cell"]:
        """The estimated effect of every cell on a few prompts. Cost: as the class's."""
        base_run, source_run = ("corrupted", "clean") if self.direction == "denoise" else ("clean", "corrupted")
        sites = QueryKeyFix.sites(whole) if self.qk_fix else whole
        layers = sorted({site.layer for site in whole if site.layer is not None})
        tokens, lengths = run_tokens(batch, source_run, metric)
        source = model.cache(tokens, [self.site], layers or None, lengths=lengths)
        tokens, lengths = run_tokens(batch, base_run, metric)
        prompts = torch.arange(len(batch), device=model.device)
        estimates: list[Tensor] = []
        for layer in self._dropped_layers(model):
            base, gradients = site_gradients(
                model,
                tokens,
                lengths=lengths,
                sites=sites,
                at=metric.positions(batch),
                score=lambda last: metric_values(model, metric, batch, final=last, prompts=prompts),
                stopped=[] if layer is None else _output_sites(model, layer),
            )
            if self.qk_fix:
                effects = QueryKeyFix.of(model, batch.layout).scores(
                    cells, base=base, source=source.values, gradients=gradients
                )
            else:
                products = {site: (source[site] - base[site]) * gradients[site] for site in whole}
                by_site = Activations(products, batch.layout)
                effects = torch.stack([by_site[site].flatten(1).double().sum(1) for site in cells], 1)
            estimates.append(effects.double().cpu() * (1.0 if self.direction == "denoise" else -1.0))
        if not self.grad_drop:
            return estimates[0]
        return torch.stack(estimates).abs().sum(0) / (len(estimates) - 1)


def _output_sites(model: HookedModel, layer: int) -> list[Site]:
    """The sites at which a layer writes into the residual stream."""
    return [Site(name, layer) for name in ("attn_out", *(() if model.architecture.attn_only else ("mlp_out",)))]


def _variables(per_example: np.ndarray, axes: Axes, contrast: Baselines, *, sizes: bool) -> dict[str, xr.DataArray]:
    dims, metric = tuple(axes), contrast.metric
    meaning = f"first-order {'size of the ' if sizes else ''}change of {metric.name} by the patch"
    share = f"estimated share of the clean-corrupted gap in {metric.name} that the patch carries"
    shares = shares_of_gap(dims, per_example, contrast, meaning=share)
    if sizes:
        shares = {name: values for name, values in shares.items() if not name.startswith("recovered")}
    return {
        **bounded("value", dims, per_example, units=metric.unit, meaning=meaning),
        "per_example": variable(("prompt", *dims), per_example, metric.unit, f"{meaning}, per prompt"),
        **shares,
    }
