"""Activation patching: copy one activation at a time from one run into another and measure the change."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from mechxai.core.batch import ContrastBatch
from mechxai.core.grid import Axes, Axis, Grid, Position
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, Metric, as_metric
from mechxai.core.result import Result
from mechxai.engine.contrast import Direction, baselines, patching, with_reference
from mechxai.engine.execution import Execution
from mechxai.engine.plan import Plan, plan
from mechxai.engine.run import run_sweep
from mechxai.engine.sweep import Sweep
from mechxai.methods.patching._lib.sweep_result import summarise
from mechxai.model.hooked_model import HookedModel


@final
@register(
    MethodCard(
        name="activation_patching",
        family="patching",
        kind="patching",
        question="Which activations carry the difference between the clean and the corrupted prompt?",
        cost="one forward pass per cell and prompt, less what the engine saves",
        source="Meng et al. 2022 (arXiv 2202.05262); Zhang and Nanda 2023 (arXiv 2309.16042)",
        pros="exact and causal",
        cons="one prompt pair's difference only; needs prompts that line up",
    )
)
@dataclass(frozen=True)
class ActivationPatching(Method):
    """Patches one activation at a time and measures the change in the metric.

    ``denoise`` runs the corrupted prompt and copies clean activations into it: which activations suffice to restore the
    behaviour. ``noise`` runs the clean prompt and copies corrupted activations into it: which ones are necessary.

    Attributes:
        site: a site name (``resid_pre``, ``z`` ...).
        over: axes of the sweep, from layer, pos, head, neuron; also the order of the result's dims.
        direction: ``denoise`` or ``noise``.
        metric: a name, a `Metric`, or a function ``(logits [batch, pos, d_vocab], batch) -> [batch]``.
        layers: the layers to sweep; all by default. Likewise ``heads``, ``neurons``.
        pos: positions (negative from the end) or roles (``S2``, ``END``); all by default. With ``pos`` not in `over`,
            one position or role at which every cell is patched.

    Example:
        >>> import mechxai as mx
        >>> model = mx.load("zoo/handmade-induction")
        >>> r = mx.ActivationPatching("z", over=("layer", "head"))(model, mx.tasks.induction(model, n=4))
        >>> r.data["recovered"].dims
        ('layer', 'head')

    Source: Meng et al. 2022; Zhang and Nanda 2023 for the defaults (token replacement, logit difference).
    """

    in_waves: ClassVar[bool] = True

    site: str = "resid_pre"
    over: Sequence[Axis] = ("layer", "pos")
    direction: Direction = "denoise"
    metric: AnyMetric = "logit_diff"
    layers: Sequence[int] | None = None
    heads: Sequence[int] | None = None
    pos: Sequence[Position] | None = None
    neurons: Sequence[int] | None = None

    def _check_fields(self) -> None:
        as_metric(self.metric)
        self._grid()

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """Sweeps the patches and returns their effects.

        Returns:
            ``value``, ``recovered`` [*over*] with 95 % intervals, ``per_example`` [prompt, *over*], the baselines, the
            engine's level and its noise floor. ``recovered`` is 0 where the patch changes nothing and 1 where it
            carries the whole difference; values outside 0 to 1 are possible.

        Raises:
            SiteError: a site, layer, head, neuron or position that does not exist.
            ModelSupportError: a site that this backend cannot edit.
            ShapeError: answers that the metric cannot score.
            NumericsError: a value that is not finite; the message names the cell.

        Cost: two baseline passes and one source pass per prompt, and the sweep (see `plan`).
        """
        metric, batch = as_metric(self.metric), batch.to(model.device)
        metric.check(batch)
        axes, sweep = self._sweep(model, batch, metric)
        sweep.check(model)
        batch = with_reference(model, batch, metric)
        axes, sweep = self._sweep(model, batch, metric)
        outcome = run_sweep(model, sweep, execution, label=f"patching {self.site}")
        both_runs = baselines(model, batch, metric, direction=self.direction, known=outcome.runs)
        return summarise(self, model, batch, axes=axes, outcome=outcome, baselines=both_runs)

    def plan(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Plan:  # noqa: B008 - frozen
        """The plan of the sweep and its estimated cost; runs nothing."""
        return plan(model, self._sweep(model, batch, as_metric(self.metric))[1], execution)

    def _grid(self) -> Grid:
        return Grid(self.site, self.over, layers=self.layers, heads=self.heads, pos=self.pos, neurons=self.neurons)

    def _sweep(self, model: HookedModel, batch: ContrastBatch, metric: Metric) -> tuple[Axes, Sweep]:
        axes, sites = self._grid().sites(model.architecture, batch)
        return axes, patching(model, batch, metric, sites=sites, direction=self.direction)
