"""Chain flow: patch whole steps of a chain between two runs and measure how much of the answer each step carries."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

import numpy as np
import torch
import xarray as xr

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention, Patch
from mechxai.core.errors import ConfigError, ModelSupportError
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, Metric, as_metric
from mechxai.core.reasoning import ReasoningBatch
from mechxai.core.result import Result, variable
from mechxai.core.site import Site
from mechxai.engine.contrast import Direction, baselines, with_reference
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
        question="How much of the answer flows through each step of the chain, and how much bypasses the chain?",
        cost="one forward pass per step (and per step and layer) and prompt, less what the engine saves",
        source="activation patching (Meng et al. 2022, arXiv 2202.05262) with whole steps as places",
        pros="exact and causal: shows what the model reads, which behaviour alone leaves open",
        cons="for pairs of correct chains only; shares need not add up to 1",
    )
)
@dataclass(frozen=True)
class ChainFlow(Method):
    """Activation patching of whole steps: copies a step's residual stream between two problems of the same wording.

    Attributes:
        direction: ``noise`` replaces the clean run's step by the corrupted one (is the step necessary?), ``denoise``
            puts the clean step into the corrupted run (is it sufficient?).
        metric: what is measured.
        by_layer: also patch each layer's residual stream alone.
    """

    takes: ClassVar[type] = ReasoningBatch
    in_waves: ClassVar[bool] = True

    direction: Direction = "noise"
    metric: AnyMetric = "logit_diff"
    by_layer: bool = True

    def _check_fields(self) -> None:
        as_metric(self.metric)

    def __call__(
        self,
        model: HookedModel | Generator,
        batch: ReasoningBatch | ContrastBatch,
        *,
        execution: Execution = Execution(),  # noqa: B008 - frozen
    ) -> Result:
        """The share of the answer that flows through each part of the prompt.

        Args:
            model: a local model.
            batch: problems with ``pairs``; or the pairs, whose spans (roles ``X_first`` and ``X``) are the parts.
            execution: how to run.

        Returns:
            ``recovered`` [part], the share of the clean-corrupted gap that moves with the question, each step, and the
            cue, with 95 % intervals; ``text`` [prompt, part], the text of each part; ``value`` [part] and
            ``per_example`` [prompt, part] of the metric; ``flow`` [layer, part], the share for one layer alone; both
            baselines; ``level``, ``noise_floor``.

        Raises:
            ModelSupportError: a model without accessible activations, such as an endpoint.
            ConfigError: problems without pairs, or pairs without spans.
            ShapeError: answers that the metric cannot score.

        Cost: see `plan`.
        """
        if not isinstance(model, HookedModel):
            raise ModelSupportError(
                f"chain_flow needs the activations of {model.name}, which only generates text",
                fix="Use a local model (mx.load), whose activations can be patched",
            )
        metric = as_metric(self.metric)
        pairs, parts, sweep = self._sweep(model, batch, metric)
        sweep.check(model)
        pairs = with_reference(model, pairs, metric)
        outcome = run_sweep(model, replace(sweep, batch=pairs), execution, label="flow through steps")
        baseline = baselines(model, pairs, metric, direction=self.direction, known=outcome.runs)
        values = outcome.values.T.numpy()
        all_layers = values[:, : len(parts)]
        verb = "restores" if self.direction == "denoise" else "removes"
        meaning = f"share of the gap in {metric.name} that patching this part, at all layers, {verb}"
        data = {
            **bounded("value", ("part",), all_layers, units=metric.unit, meaning=f"{metric.name} after patching"),
            "per_example": variable(("prompt", "part"), all_layers, metric.unit, f"{metric.name} after patching"),
            **shares_of_gap(("part",), baseline.moved(all_layers), baseline, meaning=meaning),
            "text": _part_texts(model, pairs, parts),
            "level": variable((), outcome.level, "level", "engine level that ran"),
            "noise_floor": variable((), outcome.noise_floor, metric.unit, "change by rounding alone"),
        }
        coords: dict[str, object] = {"part": parts, "prompt": list(range(len(pairs)))}
        if self.by_layer:
            n_layers = model.architecture.n_layers
            single_layer = values[:, len(parts) :].reshape(len(pairs), n_layers, len(parts))
            flow_meaning = f"share of the gap in {metric.name} that patching this part at one layer {verb}"
            data["flow"] = variable(("layer", "part"), baseline.recovered(single_layer), "fraction", flow_meaning)
            coords["layer"] = list(range(n_layers))
        info = run_info(self, model, pairs, cost=outcome.cost, notes=(*outcome.notes, *baseline.notes))
        return Result(xr.Dataset(data, coords=coords), info)

    def plan(
        self,
        model: HookedModel,
        batch: ReasoningBatch | ContrastBatch,
        *,
        execution: Execution = Execution(),  # noqa: B008 - frozen
    ) -> Plan:
        """The engine's plan and its cost, without running it."""
        return plan(model, self._sweep(model, batch, as_metric(self.metric))[2], execution)

    def _sweep(
        self, model: HookedModel, batch: ReasoningBatch | ContrastBatch, metric: Metric
    ) -> tuple[ContrastBatch, list[str], Sweep]:
        """The pairs with a role per token, the names of the parts, and the sweep over them."""
        pairs = batch.pairs if isinstance(batch, ReasoningBatch) else batch
        if pairs is None:
            raise ConfigError(
                "chain_flow needs pairs of prompts, and these problems have none",
                fix="Use a task that makes them, such as cot_arithmetic",
            )
        metric.check(pairs)
        pairs, token_roles = _with_token_roles(pairs.to(model.device))
        base, source = ("corrupted", "clean") if self.direction == "denoise" else ("clean", "corrupted")
        layers = range(model.architecture.n_layers)
        patch = Patch(RunSource(model, pairs, source, metric, tuple(Site("resid_pre", layer) for layer in layers)))

        def cell(part: str, cell_layers: Sequence[int]) -> Cell:
            return tuple(
                Intervention(Site("resid_pre", layer, pos=role), patch)
                for layer in cell_layers
                for role in token_roles[part]
            )

        cells: list[Cell] = [cell(part, layers) for part in token_roles]
        if self.by_layer:
            cells += [cell(part, [layer]) for layer in layers for part in token_roles]
        return pairs, list(token_roles), Sweep(pairs, base, cells, metric)


def _with_token_roles(batch: ContrastBatch) -> tuple[ContrastBatch, dict[str, Sequence[str]]]:
    """The batch with a role for every token of every span, and each span's token roles, in the order of the text.

    In a prompt whose span is shorter than in others, the roles of the missing tokens point to its last token.
    """
    spans = [role for role in batch.roles if f"{role}_first" in batch.roles]
    if not spans:
        raise ConfigError(
            "chain_flow needs pairs with spans, and these pairs have none", allowed="roles X_first and X for each part"
        )
    spans.sort(key=lambda role: int(batch.roles[role][0]))
    roles, token_roles = dict(batch.roles), dict[str, Sequence[str]]()
    for span in spans:
        first, last = batch.roles[f"{span}_first"], batch.roles[span]
        names = [f"{span}.{offset}" for offset in range(int((last - first).max()) + 1)]
        roles |= {name: torch.minimum(first + offset, last) for offset, name in enumerate(names)}
        token_roles[span] = names
    return replace(batch, roles=roles), token_roles


def _part_texts(model: HookedModel, batch: ContrastBatch, parts: Sequence[str]) -> xr.DataArray:
    """The text of each part of the clean prompts, ``[prompt, part]``."""
    decode = (lambda _: "") if model.tokenizer is None else model.tokenizer.decode
    rows = [
        [decode(ids[int(batch.roles[f"{part}_first"][row]) : int(batch.roles[part][row]) + 1]) for part in parts]
        for row, ids in enumerate(batch.clean.tolist())
    ]
    return variable(("prompt", "part"), np.array(rows, dtype=str), "text", "the text of the part")
