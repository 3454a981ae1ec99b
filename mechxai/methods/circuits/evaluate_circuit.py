"""Is a circuit the behaviour? Run alone, everything else cut, beside random circuits of the same size."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from sklearn.metrics import roc_auc_score
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, check_choice, nearest
from mechxai.core.graph import Graph
from mechxai.core.method import METHODS, Method, MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import Result, variable
from mechxai.core.statistics import ratio_interval
from mechxai.engine.contrast import with_reference
from mechxai.engine.execution import Execution
from mechxai.methods.circuits.circuit_runs import CircuitRuns
from mechxai.methods.circuits.edge_attribution import EdgeAttribution
from mechxai.methods.circuits.edge_result import ARROW
from mechxai.methods.circuits.references import REFERENCES, reference
from mechxai.methods.circuits.selection import FRACTIONS, RANKS, highest, pruned
from mechxai.methods.fields import as_tuples
from mechxai.methods.record import run_info
from mechxai.model.graph_writes import graph_blocks
from mechxai.model.hooked_model import HookedModel

EDGE_METHODS = ("edge_attribution", "edge_patching")
_SMALL = 1e-6


@final
@register(
    MethodCard(
        name="evaluate_circuit",
        family="circuits",
        question="Does a circuit alone do what the model does, better than random circuits of its size?",
        cost="the method that finds it, and two passes per circuit, random ones included, and prompt",
        source="Mueller et al. 2025 (arXiv 2504.13151), sections 3.1-3.2; Miller et al. 2024 (arXiv 2407.08734)",
        pros="an intervention on every edge outside; found and confirmed on different prompts",
        cons="depends on what stands in for what is cut, which is named",
    )
)
@dataclass(frozen=True)
class EvaluateCircuit(Method):
    """Faithfulness ``(m(C) - m(none)) / (m(all) - m(none))`` of the highest edges, for growing shares of them.

    Edges are found on the first prompts and confirmed on the others. Circuits lose what lies on no way from the
    embedding to the logits. Of models whose circuit is known, the scores are held against it.

    Attributes:
        of: the method that scores edges, or its name (with its defaults).
        fractions: of the edges.
        rank: edges by ``absolute`` score, or ``signed``.
        reference: what readers see of writers outside the circuit: their output in the ``corrupted`` run, ``zero``,
            their ``mean``, or another prompt's (``resample``).
        discover: share of the prompts on which edges are found; the others confirm. 1 takes all for both.
        random_draws: random circuits per fraction.
        truth: list of the model's known circuit to compare with: ``edges``, or those that a task's corrupted prompts
            can show (``visible_swap``, ``visible_abc`` ...); ignored where no circuit is known.
        metric: what is measured.
        seed: of the random circuits.
    """

    of: Any = EdgeAttribution()  # noqa: RUF009 - frozen
    fractions: Sequence[float] = FRACTIONS
    rank: str = "absolute"
    reference: str = "corrupted"
    discover: float = 0.5
    random_draws: int = 10
    truth: str = "edges"
    metric: AnyMetric = "logit_diff"
    seed: int = 0

    def __post_init__(self) -> None:
        as_metric(self.metric)
        check_choice("rank", self.rank, RANKS)
        check_choice("reference", self.reference, REFERENCES)
        as_tuples(self, "fractions")
        if not isinstance(self.of, Method):
            check_choice("of", str(self.of), EDGE_METHODS)
        increasing = all(low < high for low, high in zip(self.fractions, self.fractions[1:], strict=False))
        if not self.fractions or not increasing or not 0 < self.fractions[0] <= self.fractions[-1] <= 1:
            raise ConfigError(f"fractions={self.fractions}", allowed="growing shares above 0, up to 1")
        if not 0 < self.discover <= 1 or self.random_draws < 0:
            raise ConfigError(
                f"evaluate_circuit with discover={self.discover}, random_draws={self.random_draws}",
                allowed="discover above 0, up to 1; 0 or more draws",
            )

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """How faithful the circuits are, and how far chance goes.

        Returns:
            ``faithfulness`` [fraction] with 95 % intervals over prompts, ``cpr`` and ``cmd`` (areas under it and under
            its distance from 1), ``n_edges`` [fraction] after pruning; ``random_faithfulness`` [fraction, draw],
            ``cpr_random``, ``cmd_random`` [draw]; ``score`` [edge], what they were ranked by; with a known circuit
            ``auroc``, ``precision``, ``recall`` [fraction].

        Raises:
            ModelSupportError: a model whose residual stream is not the sum of what its nodes write.
            ConfigError: too few prompts to find and confirm on different ones.
        """
        started = time.perf_counter()
        metric, batch = as_metric(self.metric), batch.to(model.device)
        metric.check(batch)
        plain, graph = graph_blocks(model), Graph.of(model.architecture)
        found_on, confirmed_on = self._split(batch)
        truth = self._truth(model, graph)
        method = self._method()
        scores = method(model, found_on, execution=execution)
        values = scores.data["value"].values
        confirmed_on = with_reference(model, confirmed_on, metric)
        known = reference(model, (plain, graph), confirmed_on, kind=self.reference, seed=self.seed)
        runs = CircuitRuns(model, (plain, graph), confirmed_on, metric, known)
        own = pruned(graph, highest(values, self.fractions, rank=self.rank))
        drawn = self._random(graph)
        ends = torch.stack([torch.zeros(len(graph.edges)), torch.ones(len(graph.edges))]).bool()
        measured = runs.scores(torch.cat([ends, own, drawn]), execution).numpy()
        none, whole, rest = measured[0], measured[1], measured[2:]
        data = self._variables(none, whole, rest, own) | self._against(truth, values, own)
        data["score"] = variable(("edge",), values, metric.unit, "what edges were ranked by")
        src, dest = ([edge[end] for edge in graph.edges] for end in (0, 1))
        coords = {
            "fraction": list(self.fractions),
            "draw": list(range(self.random_draws)),
            "edge": [f"{one}{ARROW}{other}" for one, other in graph.edges],
            "src": ("edge", src),
            "dest": ("edge", dest),
        }
        cost = {
            "forward_passes": scores.info.cost.get("forward_passes", 0.0) + 2.0 * measured.size,
            "seconds": time.perf_counter() - started,
        }
        notes = self._notes(none, whole, found_on, confirmed_on)
        return Result(xr.Dataset(data, coords=coords), run_info(self, model, batch, cost=cost, notes=notes))

    def _method(self) -> Method:
        return METHODS[str(self.of)](metric=self.metric) if not isinstance(self.of, Method) else self.of

    def _split(self, batch: ContrastBatch) -> tuple[ContrastBatch, ContrastBatch]:
        if self.discover == 1:
            return batch, batch
        n = round(self.discover * len(batch))
        if not 0 < n < len(batch):
            raise ConfigError(
                f"{len(batch)} prompts were to be split for finding and confirming",
                got=f"{n} and {len(batch) - n}",
                fix="give more prompts, or discover=1 to confirm on those that were used",
            )
        return batch.rows(slice(0, n)), batch.rows(slice(n, len(batch)))

    def _truth(self, model: HookedModel, graph: Graph) -> Bool[np.ndarray, " edge"] | None:
        known = model.card.get("truth")
        if not known:
            return None
        lists = [name for name, value in known.items() if isinstance(value, list) and name != "nodes"]
        if self.truth not in lists:
            raise ConfigError(f"truth={self.truth!r} of {model.name}", allowed=nearest(self.truth, lists))
        found = np.zeros(len(graph.edges), bool)
        found[graph.numbers([(edge["src"], edge["dest"]) for edge in known[self.truth]]).numpy()] = True
        return found

    def _random(self, graph: Graph) -> Bool[Tensor, "circuit edge"]:
        generator = np.random.default_rng(self.seed)
        drawn = [
            pruned(graph, highest(generator.random(len(graph.edges)), self.fractions, rank="signed"))
            for _ in range(self.random_draws)
        ]
        return torch.cat(drawn) if drawn else torch.zeros(0, len(graph.edges), dtype=torch.bool)

    def _variables(
        self,
        none: Float[np.ndarray, " prompt"],
        whole: Float[np.ndarray, " prompt"],
        rest: Float[np.ndarray, "circuit prompt"],
        own: Bool[Tensor, "fraction edge"],
    ) -> dict[str, xr.DataArray]:
        gap = whole - none
        n, differ = len(self.fractions), abs(gap.mean()) > _SMALL
        share = (rest - none).mean(1) / gap.mean() if differ else np.full(len(rest), np.nan)
        bounds = ratio_interval((rest[:n] - none).T, gap)
        drawn = share[n:].reshape(self.random_draws, n).T
        over = ("fraction",)
        what = "share of the metric's gap between no edge and all edges that the circuit brings"
        data = {
            "faithfulness": variable(over, share[:n], "fraction", what),
            "faithfulness_low": variable(over, bounds.low, "fraction", f"{what}, 95 % bootstrap over prompts, low"),
            "faithfulness_high": variable(over, bounds.high, "fraction", f"{what}, 95 % bootstrap over prompts, high"),
            "n_edges": variable(over, own.sum(1).numpy(), "edges", "edges of the circuit after pruning"),
            "random_faithfulness": variable(("fraction", "draw"), drawn, "fraction", f"{what}, random circuits"),
            "baseline_clean": variable((), float(whole.mean()), "metric", "metric of the whole model"),
            "baseline_none": variable((), float(none.mean()), "metric", "metric with every edge cut"),
        }
        for suffix, values, dims in (("", share[:n, None], ()), ("_random", drawn, ("draw",))):
            cpr, cmd = areas(values, self.fractions)
            data[f"cpr{suffix}"] = variable(dims, cpr if dims else float(cpr[0]), "fraction", "area under faithfulness")
            data[f"cmd{suffix}"] = variable(
                dims, cmd if dims else float(cmd[0]), "fraction", "area under its distance from 1"
            )
        return data

    def _against(
        self, truth: Bool[np.ndarray, " edge"] | None, values: np.ndarray, own: Bool[Tensor, "fraction edge"]
    ) -> dict[str, xr.DataArray]:
        if truth is None:
            return {}
        sizes = np.nan_to_num(np.abs(values) if self.rank == "absolute" else values)
        chosen = own.numpy()
        hits = (chosen & truth).sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = hits / chosen.sum(1)
        return {
            "auroc": variable(
                (), float(roc_auc_score(truth, sizes)), "probability", "of the scores, on the known edges"
            ),
            "precision": variable(("fraction",), precision, "fraction", "known edges among the circuit's"),
            "recall": variable(("fraction",), hits / truth.sum(), "fraction", "of the known edges, in the circuit"),
            "known": variable(("edge",), truth, "truth", "whether the edge is of the known circuit"),
        }

    def _notes(
        self, none: np.ndarray, whole: np.ndarray, found_on: ContrastBatch, confirmed_on: ContrastBatch
    ) -> tuple[str, ...]:
        notes = [f"edges outside a circuit bring what they bring under reference={self.reference}"]
        if found_on is confirmed_on:
            notes.append("the circuit was confirmed on the prompts it was found on")
        if abs((whole - none).mean()) <= _SMALL:
            notes.append("cutting every edge changes nothing on average, so no share can be named")
        return tuple(notes)


def areas(
    values: Float[np.ndarray, "fraction n"], fractions: Sequence[float]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The areas under faithfulness (CPR) and under its distance from 1 (CMD), by the trapezoid rule.

    Fractions begin above 0, so even a perfect circuit has a CPR a little below 1.
    """
    cpr = np.trapezoid(values, fractions, axis=0)
    return cpr, np.trapezoid(np.abs(1 - values), fractions, axis=0)
