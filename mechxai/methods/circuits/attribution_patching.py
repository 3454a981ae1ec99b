"""Attribution patching: to first order, what patching any activation would do, from one gradient."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from mechxai.core.activations import Activations
from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, ModelSupportError, check_choice
from mechxai.core.grid import Axes, Grid, Position
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, Metric, as_metric
from mechxai.core.result import Result, variable
from mechxai.core.site import Site
from mechxai.engine.chunk import metric_values
from mechxai.engine.contrast import DIRECTIONS, Baselines, baselines, with_reference
from mechxai.engine.execution import Execution
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
        question="What would patching every activation do, to first order?",
        cost="two forward passes and one backward per prompt, whatever the grid (with grad_drop: per layer)",
        source="Nanda 2023 (neelnanda.io/attribution-patching); Kramar et al. 2024 (arXiv 2403.00745)",
        pros="every site, position, head and neuron at once; any model",
        cons="first order: wrong where a softmax saturates; ActivationPatching is the exact thing",
    )
)
@dataclass(frozen=True)
class AttributionPatching(Method):
    """``(clean - corrupted) . d metric / d activation``, the gradient taken in the run that would be patched.

    Attributes:
        site: a site name (``resid_pre``, ``z`` ...).
        over: axes of the map, from layer, pos, head, neuron; also the order of the result's dims.
        direction: ``denoise`` takes the gradient in the corrupted run (what would restore?), ``noise`` in the clean.
        metric: what is measured.
        layers: the layers; all by default. Likewise ``heads``, ``neurons``.
        pos: positions or roles; all by default. Off the axes, it fixes one position per cell.
        qk_fix: of ``q`` and ``k``, what the patch does to the pattern is computed and only the rest is first order, so
            that a saturated softmax hides nothing.
        grad_drop: the mean over layers of the *size* of the effect with the gradient through what that layer writes
            left out, so that a direct effect and one through a layer cannot cancel. With ``qk_fix`` it is AtP*.

    Source: as in the card; signs are those of activation patching's effect, positive where it supports the behaviour
    (with ``grad_drop`` there is none).
    """

    site: str = "z"
    over: Sequence[str] = ("layer", "head")
    direction: str = "denoise"
    metric: AnyMetric = "logit_diff"
    layers: Sequence[int] | None = None
    heads: Sequence[int] | None = None
    pos: Sequence[Position] | None = None
    neurons: Sequence[int] | None = None
    qk_fix: bool = False
    grad_drop: bool = False

    def _check_fields(self) -> None:
        check_choice("direction", self.direction, DIRECTIONS)
        as_metric(self.metric)
        self._grid()
        if self.qk_fix and self.site not in ("q", "k"):
            raise ConfigError(
                f"attribution_patching with qk_fix=true, site={self.site}",
                allowed="site=q or site=k",
                fix="qk_fix=false for other sites, which no softmax follows",
            )

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """The estimated effect of every patch.

        Returns:
            ``value`` [*over*], the estimated effect on the metric with 95 % intervals over prompts, ``per_example``
            [prompt, *over*], ``recovered`` [*over*], its share of the clean-corrupted gap, and the baselines. With
            ``grad_drop`` sizes, and no share.

        Raises:
            SiteError: a site, layer, head, neuron or position that does not exist.
            ModelSupportError: a site this backend cannot edit; ``qk_fix`` on blocks that are not known, ``grad_drop``
                on a model of one layer.
            ShapeError: answers the metric cannot score.
        """
        started = time.perf_counter()
        metric, batch = as_metric(self.metric), batch.to(model.device)
        metric.check(batch)
        axes, cells = self._grid().sites(model.architecture, batch)
        whole = list(dict.fromkeys(site.whole for site in cells))
        for site in (*whole, *self._written(model)):
            model.backend.check(site, editing=True)
        if self.qk_fix:
            QueryKeyFix.of(model, batch.layout)
        batch = with_reference(model, batch, metric)
        known = baselines(model, batch, metric, direction=self.direction)
        found: list[Tensor] = []
        with ProgressBar("attribution patching", len(batch), shown=execution.progress, unit="prompts") as bar:
            for _, part in batch.parts(_ROWS_AT_ONCE):
                found.append(self._part(model, part, metric, whole=whole, cells=cells))
                bar.advance(len(part))
        per_example = torch.cat(found).numpy().reshape(len(batch), *(len(values) for values in axes.values()))
        n_runs = len(self._stops(model))
        cost = {
            "forward_passes": (3.0 + n_runs) * len(batch),
            "backward_passes": float(n_runs * len(batch)),
            "seconds": time.perf_counter() - started,
        }
        data = _variables(per_example, axes, known, sizes=self.grad_drop)
        info = run_info(self, model, batch, cost=cost, notes=known.notes)
        return Result(xr.Dataset(data, coords=coordinates(self, batch, axes)), info)

    def _grid(self) -> Grid:
        return Grid(self.site, self.over, layers=self.layers, heads=self.heads, pos=self.pos, neurons=self.neurons)

    def _stops(self, model: HookedModel) -> list[int | None]:
        """The layers that gradients leave out in turn; None for leaving out none."""
        n_layers = model.architecture.n_layers
        if not self.grad_drop:
            return [None]
        if n_layers < 2:
            raise ModelSupportError(
                f"attribution_patching with grad_drop on {model.name} was asked",
                got="one layer, without which nothing is left",
                fix="grad_drop=false",
            )
        return list(range(n_layers))

    def _written(self, model: HookedModel) -> list[Site]:
        """Where layers write, of those that gradients leave out."""
        return [site for stop in self._stops(model) if stop is not None for site in _writes(model, stop)]

    def _part(
        self, model: HookedModel, part: ContrastBatch, metric: Metric, *, whole: Sequence[Site], cells: Sequence[Site]
    ) -> Float[Tensor, "prompt cell"]:
        """Each cell's estimate. Cost: as the class's."""
        base, other = ("corrupted", "clean") if self.direction == "denoise" else ("clean", "corrupted")
        sites = QueryKeyFix.sites(whole) if self.qk_fix else whole
        layers = sorted({site.layer for site in whole if site.layer is not None})
        tokens, lengths = run_tokens(part, other, metric)
        theirs = model.cache(tokens, [self.site], layers or None, lengths=lengths)
        tokens, lengths = run_tokens(part, base, metric)
        everyone = torch.arange(len(part), device=model.device)
        found: list[Tensor] = []
        for stop in self._stops(model):
            own, gradients = site_gradients(
                model,
                tokens,
                lengths=lengths,
                sites=sites,
                at=metric.positions(part),
                score=lambda last: metric_values(model, metric, part, final=last, prompts=everyone),
                stopped=[] if stop is None else _writes(model, stop),
            )
            if self.qk_fix:
                moved = QueryKeyFix.of(model, part.layout).scores(
                    cells, own=own, theirs=theirs.values, gradients=gradients
                )
            else:
                products = {site: (theirs[site] - own[site]) * gradients[site] for site in whole}
                held = Activations(products, part.layout)
                moved = torch.stack([held[site].flatten(1).double().sum(1) for site in cells], 1)
            found.append(moved.double().cpu() * (1.0 if self.direction == "denoise" else -1.0))
        if not self.grad_drop:
            return found[0]
        return torch.stack(found).abs().sum(0) / (len(found) - 1)


def _writes(model: HookedModel, layer: int) -> list[Site]:
    """Where a layer writes into the residual stream."""
    return [Site(name, layer) for name in ("attn_out", *(() if model.architecture.attn_only else ("mlp_out",)))]


def _variables(per_example: np.ndarray, axes: Axes, known: Baselines, *, sizes: bool) -> dict[str, xr.DataArray]:
    dims, metric = tuple(axes), known.metric
    meaning = f"first-order {'size of the ' if sizes else ''}change of {metric.name} by the patch"
    part = f"share of the clean-corrupted gap in {metric.name} that the patch is estimated to carry"
    shares = shares_of_gap(dims, per_example, known, meaning=part)
    if sizes:
        shares = {name: values for name, values in shares.items() if not name.startswith("recovered")}
    return {
        **bounded("value", dims, per_example, units=metric.unit, meaning=meaning),
        "per_example": variable(("prompt", *dims), per_example, metric.unit, f"{meaning}, per prompt"),
        **shares,
    }
