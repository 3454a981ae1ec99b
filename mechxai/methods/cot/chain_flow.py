"""The causal side: through which steps of a chain does the answer flow, inside a model that can be opened?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

import numpy as np
import torch
import xarray as xr

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention, Patch
from mechxai.core.errors import ConfigError, ModelSupportError, check_choice
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, Metric, as_metric
from mechxai.core.reasoning import ReasoningBatch
from mechxai.core.result import Result, variable
from mechxai.core.site import Site
from mechxai.engine.contrast import DIRECTIONS, baselines, with_reference
from mechxai.engine.execution import Execution
from mechxai.engine.plan import Plan, plan
from mechxai.engine.run import run_sweep
from mechxai.engine.sources import RunSource
from mechxai.engine.sweep import Cell, Sweep
from mechxai.methods.result_parts import bounded, run_info, shares_of_gap
from mechxai.model.generation.generator import Generator
from mechxai.model.hooked_model import HookedModel


@final
@register(
    MethodCard(
        name="chain_flow",
        family="cot",
        kind="chain_flow",
        question="How much of the answer flows through each step of the chain, and how much past it?",
        cost="one forward pass per step (and per step and layer) and prompt, less what the engine saves",
        source="activation patching (Meng et al. 2022, arXiv 2202.05262) with whole steps as places",
        pros="exact and causal, where behaviour alone leaves open what is read",
        cons="of right chains, pairwise; shares need not add up to 1",
    )
)
@dataclass(frozen=True)
class ChainFlow(Method):
    """Takes two problems in the same words and puts what one run holds at a step into the other, at all layers.

    Attributes:
        direction: ``noise`` takes the clean run's step away (is it needed?), ``denoise`` puts it into the corrupted run
            (does it suffice?).
        metric: what is measured.
        by_layer: also the residual stream of each layer alone.
    """

    takes: ClassVar[type] = ReasoningBatch
    in_waves: ClassVar[bool] = True

    direction: str = "noise"
    metric: AnyMetric = "logit_diff"
    by_layer: bool = True

    def _check_fields(self) -> None:
        check_choice("direction", self.direction, DIRECTIONS)
        as_metric(self.metric)

    def __call__(
        self,
        model: HookedModel | Generator,
        batch: ReasoningBatch | ContrastBatch,
        *,
        execution: Execution = Execution(),  # noqa: B008 - frozen
    ) -> Result:
        """How much flows through each part of the prompt.

        Args:
            model: a local one.
            batch: with ``pairs``; or pairs, whose spans (roles ``X_first`` and ``X``) are the parts.
            execution: how to run.

        Returns:
            ``recovered`` [part], the share of the clean-corrupted gap that goes with the question, each step, and the
            cue, with 95 % intervals; ``text`` [prompt, part], what stands there; ``value`` [part] and ``per_example``
            [prompt, part] of the metric; ``flow`` [layer, part], by layer alone; both baselines; ``level``,
            ``noise_floor``.

        Raises:
            ModelSupportError: a model that cannot be opened.
            ConfigError: problems without pairs, or pairs without spans.
            ShapeError: answers that the metric cannot score.

        Cost: `plan` says.
        """
        if not isinstance(model, HookedModel):
            raise ModelSupportError(
                f"chain_flow of {model.name} was asked",
                got="a model that only writes",
                fix="use a local model (mx.load), which can be opened",
            )
        metric = as_metric(self.metric)
        pairs, names, sweep = self._prepared(model, batch, metric)
        sweep.check(model)
        pairs = with_reference(model, pairs, metric)
        outcome = run_sweep(model, replace(sweep, batch=pairs), execution, label="flow through steps")
        known = baselines(model, pairs, metric, direction=self.direction, known=outcome.runs)
        values = outcome.values.T.numpy()
        whole = values[:, : len(names)]
        verb = "restores" if self.direction == "denoise" else "removes"
        meaning = f"share of the gap in {metric.name} that exchanging this part, at all layers, {verb}"
        data = {
            **bounded("value", ("part",), whole, units=metric.unit, meaning=f"{metric.name} after the exchange"),
            "per_example": variable(("prompt", "part"), whole, metric.unit, f"{metric.name} after the exchange"),
            **shares_of_gap(("part",), known.moved(whole), known, meaning=meaning),
            "text": _texts(model, pairs, names),
            "level": variable((), outcome.level, "level", "engine level that ran"),
            "noise_floor": variable((), outcome.noise_floor, metric.unit, "what rounding alone changes"),
        }
        coords: dict[str, object] = {"part": names, "prompt": list(range(len(pairs)))}
        if self.by_layer:
            n_layers = model.architecture.n_layers
            single = values[:, len(names) :].reshape(len(pairs), n_layers, len(names))
            said = f"share of the gap in {metric.name} that exchanging this layer's stream at this part {verb}"
            data["flow"] = variable(("layer", "part"), known.recovered(single), "fraction", said)
            coords["layer"] = list(range(n_layers))
        info = run_info(self, model, pairs, cost=outcome.cost, notes=(*outcome.notes, *known.notes))
        return Result(xr.Dataset(data, coords=coords), info)

    def plan(
        self,
        model: HookedModel,
        batch: ReasoningBatch | ContrastBatch,
        *,
        execution: Execution = Execution(),  # noqa: B008 - frozen
    ) -> Plan:
        """How the sweep would be run and what it would cost; runs nothing."""
        return plan(model, self._prepared(model, batch, as_metric(self.metric))[2], execution)

    def _prepared(
        self, model: HookedModel, batch: ReasoningBatch | ContrastBatch, metric: Metric
    ) -> tuple[ContrastBatch, list[str], Sweep]:
        pairs = batch.pairs if isinstance(batch, ReasoningBatch) else batch
        if pairs is None:
            raise ConfigError(
                "chain_flow was asked", got="problems without pairs", fix="use a task that makes them (cot_arithmetic)"
            )
        metric.check(pairs)
        pairs, places = _places(pairs.to(model.device))
        base, source = ("corrupted", "clean") if self.direction == "denoise" else ("clean", "corrupted")
        layers = range(model.architecture.n_layers)
        patch = Patch(RunSource(model, pairs, source, metric, tuple(Site("resid_pre", layer) for layer in layers)))
        put = lambda layer, part: tuple(  # noqa: E731
            Intervention(Site("resid_pre", layer, pos=role), patch) for role in places[part]
        )
        cells: list[Cell] = [tuple(one for layer in layers for one in put(layer, part)) for part in places]
        if self.by_layer:
            cells += [put(layer, part) for layer in layers for part in places]
        return pairs, list(places), Sweep(pairs, base, cells, metric)


def _places(batch: ContrastBatch) -> tuple[ContrastBatch, dict[str, Sequence[str]]]:
    """The batch with a role for every token of every span, and each span's roles, in the order of the text.

    Where a prompt's span is shorter than others', its last token stands for those that it lacks.
    """
    spans = [role for role in batch.roles if f"{role}_first" in batch.roles]
    if not spans:
        raise ConfigError(
            "chain_flow was asked", got="pairs without spans", allowed="roles X_first and X for each part"
        )
    spans.sort(key=lambda role: int(batch.roles[role][0]))
    roles, places = dict(batch.roles), dict[str, Sequence[str]]()
    for role in spans:
        first, last = batch.roles[f"{role}_first"], batch.roles[role]
        names = [f"{role}.{number}" for number in range(int((last - first).max()) + 1)]
        roles |= {name: torch.minimum(first + number, last) for number, name in enumerate(names)}
        places[role] = names
    return replace(batch, roles=roles), places


def _texts(model: HookedModel, batch: ContrastBatch, names: Sequence[str]) -> xr.DataArray:
    """What stands in each part of the clean prompts."""
    decode = (lambda _: "") if model.tokenizer is None else model.tokenizer.decode
    rows = [
        [decode(row[int(batch.roles[f"{name}_first"][number]) : int(batch.roles[name][number]) + 1]) for name in names]
        for number, row in enumerate(batch.clean.tolist())
    ]
    return variable(("prompt", "part"), np.array(rows, dtype=str), "text", "what stands there")
