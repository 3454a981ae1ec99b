"""Tests of a circuit: is it the model, is nothing left outside it, does it need each of its edges?"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError
from mechxai.core.graph import EMBED, LOGITS, Graph, node_of
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import Result, variable
from mechxai.engine.execution import Execution
from mechxai.methods.circuits._lib.circuit_runs import CircuitRuns
from mechxai.methods.circuits._lib.discovery import check_discovery, edge_method, found_and_confirmed
from mechxai.methods.circuits._lib.edge_result import ARROW
from mechxai.methods.circuits._lib.edge_selection import highest, pruned
from mechxai.methods.circuits._lib.hypotheses import exceeding, holm, independence_test, sign_test
from mechxai.methods.result_parts import run_info
from mechxai.model.graph.writes import graph_blocks
from mechxai.model.hooked_model import HookedModel

TESTS = ("equivalence", "independence", "sufficiency", "necessity", "minimality")


@final
@register(
    MethodCard(
        name="circuit_tests",
        family="circuits",
        kind="circuit_tests",
        question="Is a circuit the model's mechanism: enough, all of it, and no more than needed? With p-values.",
        cost="the method that finds it, and two passes per prompt for each edge of it and each random draw",
        source="Shi et al. 2024 (arXiv 2410.13032)",
        pros="says what would count against the circuit, and how surprising the evidence is",
        cons="few circuits pass all; what stands in for what is cut is a choice, which is named",
    )
)
@dataclass(frozen=True)
class CircuitTests(Method):
    """Five hypotheses about the highest edges, each with a statistic and a p-value.

    Equivalence: the circuit scores above the model as often as below (small p: it does not). Independence: what is left
    without the circuit tells nothing of the model's scores (small p: it does). Sufficiency: no random circuit of its
    size is as near to the model (small p: none is). Necessity: no random edges outside it are missed as much (small p:
    none are). Minimality: each edge is missed more than edges of random detours are (small p: it is).

    Attributes:
        of: the method that scores edges, its name (with its defaults), or a file of edges (``.nc``, ``.json``).
        fraction: of the edges, the circuit before pruning.
        rank: edges by ``absolute`` score, or ``signed``.
        reference: what readers see of writers outside: ``corrupted``, ``zero``, ``mean`` or ``resample``.
        discover: share of the prompts on which edges are found; the others test. 1 takes all for both.
        split: by ``prompts`` or by ``templates``.
        draws: random circuits, random detours and permutations.
        most: edges of the circuit that are tested for minimality, the highest first.
        tolerance: differences up to this share of the gap between the model and no edges count as none (equivalence).
        metric: what is measured.
        seed: of all draws.
    """

    of: Any = "edge_attribution"
    fraction: float = 0.05
    rank: str = "absolute"
    reference: str = "corrupted"
    discover: float = 0.5
    split: str = "prompts"
    draws: int = 100
    most: int = 100
    tolerance: float = 0.01
    metric: AnyMetric = "logit_diff"
    seed: int = 0

    def _check_fields(self) -> None:
        check_discovery(self.of, self.metric, rank=self.rank, away=self.reference, split=self.split)
        shares = (self.fraction, self.discover)
        if not all(0 < one <= 1 for one in shares) or min(self.draws, self.most) < 1 or self.tolerance < 0:
            raise ConfigError(
                "circuit_tests",
                got=f"fraction={self.fraction}, discover={self.discover}, draws={self.draws}, most={self.most}, "
                f"tolerance={self.tolerance}",
                allowed="shares above 0, up to 1; 1 or more draws and edges; a tolerance of 0 or more",
            )

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """The tests.

        Returns:
            ``p`` and ``statistic`` [test]; ``n_edges``; ``loss`` [edge], what the circuit loses without each of its
            edges, ``p_edge`` [edge], raised for their number (Holm); ``loss_random`` [draw], what is lost without a
            random detour's edge.

        Raises:
            ModelSupportError: a model whose residual stream is not the sum of what its nodes write.
            ConfigError: too few prompts or templates, or an empty circuit.
        """
        started = time.perf_counter()
        metric, batch = as_metric(self.metric), batch.to(model.device)
        metric.check(batch)
        blocks = graph_blocks(model)
        graph = blocks.graph
        found_on, tested_on = found_and_confirmed(batch, self.discover, self.split)
        scores = edge_method(self.of, self.metric)(model, found_on, execution=execution)
        values = scores.data["value"].values
        circuit = pruned(graph, highest(values, [self.fraction], rank=self.rank))[0]
        if not bool(circuit.any()):
            raise ConfigError(
                f"circuit_tests with fraction={self.fraction}",
                got="a circuit without a way from the embedding to the logits",
                fix="a larger fraction",
            )
        asked = _Circuits(graph, circuit, values, draws=self.draws, most=self.most, seed=self.seed)
        runs = CircuitRuns.of(model, blocks, tested_on, metric=metric, kind=self.reference, seed=self.seed)
        measured = dict(zip(asked.tables, _split(runs, list(asked.tables.values()), execution), strict=True))
        data = _variables(asked, measured, metric.unit, tolerance=self.tolerance, seed=self.seed)
        coords = {
            "test": list(TESTS),
            "edge": [ARROW.join(graph.edges[edge]) for edge in asked.tested],
            "draw": list(range(self.draws)),
        }
        n_runs = sum(map(len, measured.values())) * len(tested_on)
        cost = {
            "forward_passes": scores.info.cost.get("forward_passes", 0.0) + 2.0 * n_runs,
            "seconds": time.perf_counter() - started,
        }
        notes = (
            f"edges outside a circuit bring what they bring under reference={self.reference}",
            "equivalence and independence hold where p is large; the others where it is small",
        )
        return Result(xr.Dataset(data, coords=coords), run_info(self, model, batch, cost=cost, notes=notes))


class _Circuits:
    """Every circuit that the tests ask for, by what it is for."""

    def __init__(
        self, graph: Graph, circuit: Bool[Tensor, " edge"], values: np.ndarray, *, draws: int, most: int, seed: int
    ) -> None:
        self.circuit = circuit
        generator = np.random.default_rng(seed)
        n, size = len(graph.edges), int(circuit.sum())
        whole = torch.ones(1, n, dtype=torch.bool)
        inside = circuit.nonzero()[:, 0].numpy()
        self.tested = inside[np.argsort(-np.abs(values[inside]), kind="stable")][:most]
        without = circuit.repeat(len(self.tested), 1)
        without[range(len(self.tested)), self.tested] = False
        outside = (~circuit).nonzero()[:, 0].numpy()
        random = torch.zeros(draws, n, dtype=torch.bool)
        cut = whole.repeat(draws, 1)
        longer, shorter = circuit.repeat(draws, 1), circuit.repeat(draws, 1)
        for draw in range(draws):
            random[draw, generator.permutation(n)[:size]] = True
            if len(outside):
                cut[draw, generator.permutation(outside)[:size]] = False
            detour = _way(graph, generator)
            new = [edge for edge in detour if not circuit[edge]]
            if new:  # a way through the circuit alone adds nothing that could be missed
                longer[draw, detour] = shorter[draw, detour] = True
                shorter[draw, int(generator.choice(new))] = False
        self.tables: dict[str, Bool[Tensor, "circuit edge"]] = {
            "whole": whole,
            "none": ~whole,
            "circuit": circuit[None],
            "complement": (~circuit)[None],
            "without": without,
            "random": random,
            "cut": cut,
            "longer": longer,
            "shorter": shorter,
        }


def _way(graph: Graph, generator: np.random.Generator) -> list[int]:
    """A random way from the embedding to the logits, as numbers of edges: from the logits back, a writer at a time."""
    numbers = {edge: number for number, edge in enumerate(graph.edges)}
    into: dict[str, list[tuple[str, str]]] = {}
    for src, dest in graph.edges:
        into.setdefault(node_of(dest), []).append((src, dest))
    groups = graph.n_heads // graph.n_kv_heads
    found, node = [], LOGITS
    while node != EMBED:
        choices = list(into.get(node, []))
        if ".h" in node and groups > 1:  # a head also reads through its group's keys and values
            layer, head = node.split(".h")
            choices += into.get(f"{layer}.g{int(head) // groups}", [])
        src, dest = choices[int(generator.integers(len(choices)))]
        found.append(numbers[src, dest])
        node = src
    return found


def _split(
    runs: CircuitRuns, tables: Sequence[Bool[Tensor, "_ edge"]], execution: Execution
) -> list[Float[np.ndarray, "_ prompt"]]:
    """The metric of every circuit of several tables."""
    found = runs.scores(torch.cat(list(tables)), execution).numpy()
    ends = np.cumsum([len(table) for table in tables])[:-1]
    return np.split(found, ends)


def _variables(
    asked: _Circuits, measured: dict[str, Float[np.ndarray, "_ prompt"]], unit: str, *, tolerance: float, seed: int
) -> dict[str, xr.DataArray]:
    whole, circuit, complement = (measured[name][0] for name in ("whole", "circuit", "complement"))
    draws = len(measured["random"])

    def apart(scores: np.ndarray) -> np.ndarray:
        return np.abs((scores - whole).mean(1))

    gap = abs(float((whole - measured["none"][0]).mean()))
    share, equivalent = sign_test(circuit, whole, tie=tolerance * gap)
    depends, independent = independence_test(complement, whole, draws=draws, seed=seed)
    near, missed = float(apart(circuit[None])[0]), float(apart(complement[None])[0])
    loss = np.abs((measured["without"] - circuit).mean(1))
    detours = np.abs((measured["shorter"] - measured["longer"]).mean(1))
    each = holm(np.array([exceeding(one, detours) for one in loss]))
    tests = {
        "equivalence": (share, equivalent),
        "independence": (depends, independent),
        "sufficiency": (near, exceeding(-near, -apart(measured["random"]))),
        "necessity": (missed, exceeding(missed, apart(measured["cut"]))),
        "minimality": (float((each <= 0.05).mean()), float(each.max())),
    }
    statistic, p = (np.array([tests[name][at] for name in TESTS]) for at in (0, 1))
    meaning = "share above the model; HSIC; distance from the model (alone, cut out); share of edges needed at 0.05"
    return {
        "p": variable(("test",), p, "probability", "p-value"),
        "statistic": variable(("test",), statistic, "of the test", meaning),
        "n_edges": variable((), int(asked.circuit.sum()), "edges", "edges of the circuit after pruning"),
        "loss": variable(("edge",), loss, unit, "what the circuit loses without the edge"),
        "p_edge": variable(("edge",), each, "probability", "p-value of being needed, raised for their number (Holm)"),
        "loss_random": variable(("draw",), detours, unit, "what is lost without an edge of a random detour"),
    }
