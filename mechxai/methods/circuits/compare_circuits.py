"""Which way of finding circuits finds the one that is known? Every method, every ablation, every model with a truth."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import final

import numpy as np
import xarray as xr

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, check_choice
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import Result, variable
from mechxai.engine.execution import Execution
from mechxai.engine.progress import ProgressBar
from mechxai.methods.circuits._lib.discovery import FINDERS, edge_method
from mechxai.methods.circuits._lib.references import REFERENCES
from mechxai.methods.circuits.evaluate_circuit import EvaluateCircuit
from mechxai.methods.result_parts import run_info
from mechxai.model.graph.writes import graph_blocks
from mechxai.model.hooked_model import HookedModel
from mechxai.model.load import load
from mechxai.tasks.generators import induction, ioi

EVERY = ("eap", "clean_corrupted", "eap_ig_inputs", "eap_ig_activations", "edge_patching", "acdc", "edge_pruning")
_MEASURES = {
    "auroc": ("probability", "of the scores, on the known edges"),
    "precision": ("fraction", "known edges among as many of the highest, after pruning"),
    "recall": ("fraction", "of the known edges, among as many of the highest, after pruning"),
    "faithfulness": ("fraction", "of the metric's gap that so many of the highest edges bring"),
    "cpr": ("fraction", "area under the faithfulness of growing circuits"),
    "cmd": ("fraction", "area under its distance from 1; 0 is best"),
    "cmd_random": ("fraction", "area under the distance of random circuits from 1, mean"),
    "seconds": ("s", "to find and to measure"),
}
_ENDS = ("auroc_low", "auroc_high", "cpr_low", "cpr_high", "cmd_low", "cmd_high")


@final
@register(
    MethodCard(
        name="compare_circuits",
        family="circuits",
        kind="circuit_comparison",
        question="Which way of finding circuits finds the one that is known, under which ablation?",
        cost="every method once per ablation, and two passes per circuit and prompt to measure it",
        source="Mueller et al. 2025 (arXiv 2504.13151); Gupta et al. 2024 (arXiv 2407.14494)",
        pros="one table, random circuits beside; models whose circuit is written, planted or trained in",
        cons="small models: what is best here need not be on large ones",
    )
)
@dataclass(frozen=True)
class CompareCircuits(Method):
    """Every method's edges are held against the model's known circuit, and run alone.

    Edges are found on half of the prompts and measured on the others. What stands in for what is cut is the same for
    finding and for measuring. Where it is the corrupted run, the truth is what the prompts can show, if the model names
    that (``shown``).

    Attributes:
        methods: names of methods.
        references: what stands in for what is cut: ``corrupted``, ``zero``, ``mean``, ``resample``. Methods that do not
            take one are left out there.
        beside: more bundled models with a known circuit, each with its own task.
        truth: list of a model's known circuit; ``shown``: that of the edges that corrupted prompts can show.
        metric: what is explained and measured.
        seed: of all draws.
    """

    methods: Sequence[str] = EVERY
    references: Sequence[str] = ("corrupted", "zero", "mean")
    beside: Sequence[str] = ()
    truth: str = "edges"
    shown: str = "visible_swap"
    metric: AnyMetric = "logit_diff"
    seed: int = 0

    def _check_fields(self) -> None:
        as_metric(self.metric)
        for name in self.methods:
            check_choice("methods", name, tuple(FINDERS))
        for name in self.references:
            check_choice("references", name, REFERENCES)
        if not self.methods or not self.references:
            raise ConfigError("compare_circuits without methods or references", fix="give at least one of each")

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """One row per model, method and ablation.

        Returns:
            ``auroc``, ``cpr``, ``cmd`` with 95 % intervals over prompts, ``precision``, ``recall`` and ``faithfulness``
            of a circuit of the true size, ``cmd_random``, ``seconds`` [model, method, reference]; NaN where a method
            does not take a reference.

        Raises:
            ConfigError: a model without a known circuit.
            ModelSupportError: a model whose residual stream is not the sum of what its nodes write.
        """
        started = time.perf_counter()
        cases = [(model, batch), *self._beside(model, batch)]
        for one, _ in cases:
            self._truth(one, "zero")
        names = [case.name for case, _ in cases]
        shape = (len(cases), len(self.methods), len(self.references))
        found = {name: np.full(shape, np.nan) for name in (*_MEASURES, *_ENDS)}
        left: dict[str, None] = {}
        with ProgressBar("circuits compared", int(np.prod(shape)), shown=execution.progress, unit="circuits") as bar:
            for place, (case, method, reference) in zip(
                np.ndindex(*shape), product(cases, self.methods, self.references), strict=True
            ):
                try:
                    edge_method(method, self.metric, reference)
                except ConfigError:
                    left[f"{method} does not take reference={reference}"] = None
                else:
                    for name, value in self._measured(case, method, reference).items():
                        found[name][place] = value
                bar.advance(1)
        dims = ("model", "method", "reference")
        data = {name: variable(dims, found[name], *_MEASURES[name]) for name in _MEASURES}
        for name in _ENDS:
            unit, meaning = _MEASURES[name.partition("_")[0]]
            data[name] = variable(dims, found[name], unit, f"{meaning}, 95 % over prompts, {name.partition('_')[2]}")
        coords = {"model": names, "method": list(self.methods), "reference": list(self.references)}
        cost = {"seconds": time.perf_counter() - started}
        return Result(xr.Dataset(data, coords=coords), run_info(self, model, batch, cost=cost, notes=tuple(left)))

    def _beside(self, model: HookedModel, batch: ContrastBatch) -> Iterator[tuple[HookedModel, ContrastBatch]]:
        """The other models with their tasks.

        Yields:
            Each.
        """
        for name in self.beside:
            other = load(name, device=str(model.device))
            yield other, task_of(other, len(batch), self.seed)

    def _truth(self, model: HookedModel, reference: str) -> tuple[str, int]:
        """The list of the known circuit that is compared with, and its length."""
        known = model.card.get("truth") or {}
        name = self.shown if reference == "corrupted" and self.shown in known else self.truth
        if not isinstance(known.get(name), list):
            raise ConfigError(
                f"compare_circuits on {model.name}",
                got=f"no known circuit of the name {name}",
                allowed="zoo/handmade-ioi, zoo/handmade-induction, zoo/planted-ioi, zoo/interchange-ioi",
            )
        return name, len(known[name])

    def _measured(self, case: tuple[HookedModel, ContrastBatch], method: str, reference: str) -> dict[str, float]:
        model, batch = case
        truth, n_true = self._truth(model, reference)
        n_edges = len(graph_blocks(model).graph.edges)
        size = (n_true + 0.5) / n_edges
        evaluate = EvaluateCircuit(
            edge_method(method, self.metric, reference),
            fractions=sorted({size, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0}),
            reference=reference,
            truth=truth,
            metric=self.metric,
            seed=self.seed,
        )
        result = evaluate(model, batch, execution=Execution(progress=False))
        data = result.data
        at = evaluate.fractions.index(size)
        curve = {name: float(data[name].values[at]) for name in ("precision", "recall", "faithfulness")}
        single = {name: float(data[name]) for name in ("auroc", "cpr", "cmd", *_ENDS) if name in data}
        chance = {"cmd_random": float(data["cmd_random"].mean()), "seconds": result.info.cost["seconds"]}
        return {**curve, **single, **chance}


def task_of(model: HookedModel, n: int, seed: int) -> ContrastBatch:
    """Prompts that show a bundled model's known circuit.

    Of induction, other random tokens are the corrupted prompts, so that every edge of the circuit can be seen.
    """
    if "induction" not in model.name:
        return ioi(model, n=n, seed=seed)
    one, other = (induction(model, n=n, seed=own) for own in (seed, seed + 1000))
    return ContrastBatch.from_tokens(one.clean, other.clean, one.answers, other.answers)
