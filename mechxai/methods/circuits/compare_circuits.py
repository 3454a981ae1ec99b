"""Comparison of discovery methods: how well each recovers a known circuit, under each reference for cut edges."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import final

import numpy as np
import xarray as xr

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, check_choice
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import Result, variable
from mechxai.core.work_clock import work_seconds
from mechxai.engine.checkpoint import ARRAYS
from mechxai.engine.execution import Execution
from mechxai.engine.finished import FinishedPieces
from mechxai.engine.progress import ProgressBar
from mechxai.methods.circuits._lib.discovery import DISCOVERY_METHODS, discovery_methods, edge_method
from mechxai.methods.circuits._lib.references import ReferenceKind
from mechxai.methods.circuits.evaluate_circuit import EvaluateCircuit
from mechxai.methods.result_parts import run_info
from mechxai.model.graph.writes import graph_blocks
from mechxai.model.hooked_model import HookedModel
from mechxai.model.load import load
from mechxai.tasks.generators import induction, ioi

_FRACTIONS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of the edges, beside the size of the known circuit
_MEASURES = {
    "auroc": ("probability", "of the scores, on the known edges"),
    "precision": ("fraction", "known edges among the highest edges, as many as are known, after pruning"),
    "recall": ("fraction", "known edges that are among the highest edges, as many as are known, after pruning"),
    "faithfulness": ("fraction", "share of the metric's gap that the highest edges bring, as many as are known"),
    "cpr": ("fraction", "area under the faithfulness of growing circuits"),
    "cmd": ("fraction", "area under the distance of faithfulness from 1; 0 is best"),
    "cmd_random": ("fraction", "area under the distance of random circuits from 1, mean"),
    "seconds": ("s", "to find and to evaluate the circuit"),
}
_BOUNDS = ("auroc_low", "auroc_high", "cpr_low", "cpr_high", "cmd_low", "cmd_high")


@final
@register(
    MethodCard(
        name="compare_circuits",
        family="circuits",
        kind="circuit_comparison",
        question="Which discovery method recovers a known circuit best, under which reference for cut edges?",
        cost="every method once per reference, and two passes per circuit and prompt to evaluate it",
        source="Mueller et al. 2025 (arXiv 2504.13151); Gupta et al. 2024 (arXiv 2407.14494)",
        pros="one table with random circuits; models whose circuit is handwritten, planted or trained in",
        cons="small models: the best method here need not be the best on large models",
    )
)
@dataclass(frozen=True)
class CompareCircuits(Method):
    """Every discovery method's scores are compared with the model's known circuit, and its circuit is run alone.

    Edges are found on half of the prompts and tested on the others, under the same reference. Under the corrupted run
    as reference, the known circuit is the edges that the prompts can show, if the model lists them (``shown``).

    Attributes:
        methods: names of discovery methods.
        references: what readers see of writers whose edge is cut: ``corrupted``, ``zero``, ``mean``, ``resample``. A
            method that does not take a reference has NaN there.
        beside: more bundled models with a known circuit, each with its task.
        truth: list of a model's known circuit.
        shown: list of the edges that corrupted prompts can show.
        metric: the metric to explain and to evaluate.
        seed: of all random draws.
    """

    methods: Sequence[str] = DISCOVERY_METHODS
    references: Sequence[ReferenceKind] = ("corrupted", "zero", "mean")
    beside: Sequence[str] = ()
    truth: str = "edges"
    shown: str = "visible_swap"
    metric: AnyMetric = "logit_diff"
    seed: int = 0

    def _check_fields(self) -> None:
        as_metric(self.metric)
        for name in self.methods:
            check_choice("methods", name, discovery_methods())
        for name, values in (("methods", self.methods), ("references", self.references)):
            if not values:
                raise ConfigError(f"{name} is empty", fix="Give at least one")

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """One row per model, method and reference.

        Returns:
            ``auroc``, ``cpr``, ``cmd`` with 95 % intervals over prompts, ``precision``, ``recall`` and ``faithfulness``
            of a circuit of the known circuit's size, ``cmd_random``, ``seconds`` [model, method, reference]; NaN where
            a method does not take a reference.

        Raises:
            ConfigError: a model without a known circuit.
            ModelSupportError: a model whose residual stream is not the sum of what its nodes write.
        """
        started = work_seconds()
        cases = [(model, batch), *self._other_cases(model, batch)]
        for other, _ in cases:
            self._known_circuit(other, "zero")
        shape = (len(cases), len(self.methods), len(self.references))
        values = {name: np.full(shape, np.nan) for name in (*_MEASURES, *_BOUNDS)}
        skipped: dict[str, None] = {}
        rows = zip(np.ndindex(*shape), product(cases, self.methods, self.references), strict=True)
        question = ("compare circuits", cases, self.metric, self.truth, self.shown, self.seed)
        with (
            FinishedPieces(execution.cells, *question, serializer=ARRAYS) as finished,
            ProgressBar("circuits compared", int(np.prod(shape)), shown=execution.progress, unit="circuits") as bar,
        ):
            for index, (case, method, reference) in rows:
                try:
                    edge_method(method, self.metric, reference)
                except ConfigError:
                    skipped[f"{method} does not take reference={reference}"] = None
                else:
                    inner = replace(execution, progress=False)
                    measures = partial(self._measures, case, method, reference, execution=inner)
                    for name, value in finished.take((index, method, reference), measures).items():
                        values[name][index] = float(value)
                bar.advance(1)
        dims = ("model", "method", "reference")
        data = {name: variable(dims, values[name], *_MEASURES[name]) for name in _MEASURES}
        for name in _BOUNDS:
            measure, _, end = name.partition("_")
            unit, meaning = _MEASURES[measure]
            data[name] = variable(dims, values[name], unit, f"{meaning}, 95 % over prompts, {end}")
        names = [case.name for case, _ in cases]
        coords = {"model": names, "method": list(self.methods), "reference": list(self.references)}
        cost = {"seconds": work_seconds() - started}
        return Result(xr.Dataset(data, coords=coords), run_info(self, model, batch, cost=cost, notes=tuple(skipped)))

    def _other_cases(self, model: HookedModel, batch: ContrastBatch) -> Iterator[tuple[HookedModel, ContrastBatch]]:
        """The models of ``beside`` with their tasks.

        Yields:
            A model and its prompts.
        """
        for name in self.beside:
            other = load(name, device=str(model.device))
            yield other, task_of(other, len(batch), self.seed)

    def _known_circuit(self, model: HookedModel, reference: ReferenceKind) -> tuple[str, int]:
        """The list of the known circuit that scores are compared with, and its length."""
        lists = model.card.get("truth") or {}
        name = self.shown if reference == "corrupted" and self.shown in lists else self.truth
        if not isinstance(lists.get(name), list):
            raise ConfigError(
                f"{model.name} has no known circuit {name!r}",
                allowed="zoo/handmade-ioi, zoo/handmade-induction, zoo/planted-ioi, zoo/interchange-ioi",
            )
        return name, len(lists[name])

    def _measures(
        self, case: tuple[HookedModel, ContrastBatch], method: str, reference: ReferenceKind, *, execution: Execution
    ) -> dict[str, np.ndarray]:
        """The measures of one method on one model; `EvaluateCircuit` computes them."""
        model, batch = case
        truth, n_known = self._known_circuit(model, reference)
        n_edges = len(graph_blocks(model).graph.edges)
        size = (n_known + 0.5) / n_edges
        evaluation = EvaluateCircuit(
            edge_method(method, self.metric, reference),
            fractions=sorted({size, *_FRACTIONS}),
            reference=reference,
            truth=truth,
            metric=self.metric,
            seed=self.seed,
        )
        result = evaluation(model, batch, execution=execution)
        data = result.data
        at = evaluation.fractions.index(size)
        at_size = {name: float(data[name].values[at]) for name in ("precision", "recall", "faithfulness")}
        scalars = {name: float(data[name]) for name in ("auroc", "cpr", "cmd", *_BOUNDS) if name in data}
        chance = {"cmd_random": float(data["cmd_random"].mean()), "seconds": result.info.cost["seconds"]}
        return {name: np.asarray(value, float) for name, value in {**at_size, **scalars, **chance}.items()}


def task_of(model: HookedModel, n: int, seed: int) -> ContrastBatch:
    """Prompts that show a bundled model's known circuit.

    For induction the corrupted prompts are other random tokens, so that every edge of the circuit matters.
    """
    if "induction" not in model.name:
        return ioi(model, n=n, seed=seed)
    clean, corrupted = (induction(model, n=n, seed=task_seed) for task_seed in (seed, seed + 1000))
    return ContrastBatch.from_tokens(clean.clean, corrupted.clean, clean.answers, corrupted.answers)
