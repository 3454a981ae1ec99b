"""Hypothesis tests of a circuit: equivalence, independence, sufficiency, necessity and minimality, with p-values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError
from mechxai.core.graph import EMBED, LOGITS, Graph, node_of
from mechxai.core.method import MethodCard, register
from mechxai.core.result import Result, variable
from mechxai.engine.execution import Execution
from mechxai.methods.circuits._lib.circuit_runs import CircuitRuns
from mechxai.methods.circuits._lib.circuit_validation import CircuitValidation
from mechxai.methods.circuits._lib.edge_result import ARROW
from mechxai.methods.circuits._lib.field_checks import check_at_least, check_share
from mechxai.methods.circuits._lib.hypotheses import exceedance, holm, independence_test, sign_test
from mechxai.methods.circuits._lib.prepared_graph import prepare_graph
from mechxai.model.hooked_model import HookedModel

_TESTS = ("equivalence", "independence", "sufficiency", "necessity", "minimality")


@final
@register(
    MethodCard(
        name="circuit_tests",
        family="circuits",
        kind="circuit_tests",
        question="Is a circuit the model's mechanism: sufficient, complete and minimal? With p-values.",
        cost="the method that finds it, and two passes per prompt for each edge of it and each random draw",
        source="Shi et al. 2024 (arXiv 2410.13032)",
        pros="states what would count against the circuit, with p-values",
        cons="few circuits pass all; depends on the reference for cut edges, which the result notes",
    )
)
@dataclass(frozen=True)
class CircuitTests(CircuitValidation):
    """Five hypotheses about the highest edges, each with a statistic and a p-value.

    Equivalence: the circuit scores above the model as often as below (a small p rejects it). Independence: the scores
    of the circuit's complement are independent of the model's (a small p rejects it). Sufficiency: random circuits of
    its size are farther from the model (a small p supports it). Necessity: cutting as many random edges outside the
    circuit changes the metric less (a small p supports it). Minimality: cutting any edge of the circuit changes the
    metric more than cutting an edge of a random detour (a small p supports it).

    Attributes:
        of: the method that scores edges, its name (with its defaults), or a file of edges (``.nc``, ``.json``).
        fraction: of the edges, the circuit before pruning.
        rank: edges by ``absolute`` score, or ``signed``.
        reference: what readers see of writers outside: ``corrupted``, ``zero``, ``mean`` or ``resample``.
        discover: share of the prompts that find the edges; the others test them. 1 takes all for both.
        split: of the prompts, by ``prompts`` or by ``templates``.
        draws: random circuits, random detours and permutations.
        most: edges of the circuit that are tested for minimality, the highest first.
        tolerance: differences up to this share of the gap between the model and no edges count as none (equivalence).
        metric: the metric of the runs.
        seed: of all random draws.
    """

    fraction: float = 0.05
    draws: int = 100
    most: int = 100
    tolerance: float = 0.01

    def _check_fields(self) -> None:
        check_share("fraction", self.fraction)
        check_at_least(1, draws=self.draws, most=self.most)
        if self.tolerance < 0:
            raise ConfigError(f"tolerance is {self.tolerance}: it must be at least 0")

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """The tests.

        Returns:
            ``p`` and ``statistic`` [test]; ``n_edges``; ``loss`` [edge], the change of the circuit's metric without
            each of its edges, ``p_edge`` [edge], corrected for the number of edges (Holm); ``loss_random`` [draw], the
            change without an edge of a random detour.

        Raises:
            ModelSupportError: a model whose residual stream is not the sum of what its nodes write.
            ConfigError: too few prompts or templates, or an empty circuit.
        """
        prepared = prepare_graph(model, batch, self.metric)
        graph = prepared.graph
        with self._split_runs(prepared, execution) as runs:
            discovery = self._discovery(runs, execution)
            values = discovery.data["value"].values
            circuit = self._circuit(prepared, values, self.fraction)
            circuits = _TestedCircuits(graph, circuit, values, draws=self.draws, most=self.most, seed=self.seed)
            scores = _scores(runs.tests, circuits.tables, execution)
            data = _variables(scores, prepared.metric.unit, tolerance=self.tolerance, seed=self.seed)
            data["n_edges"] = variable((), int(circuit.sum()), "edges", "edges of the circuit after pruning")
            coords = {
                "test": list(_TESTS),
                "edge": [ARROW.join(graph.edges[edge]) for edge in circuits.tested_edges],
                "draw": list(range(self.draws)),
            }
            n_runs = sum(map(len, scores.values())) * runs.n_test_prompts
            note = (
                "a small p speaks against equivalence and independence, and for sufficiency, necessity and minimality"
            )
            return self._result(runs, data, coords, discovery=discovery, n_runs=n_runs, notes=[note])


class _TestedCircuits:
    """Every circuit that the tests run.

    Attributes:
        tested_edges: numbers of the edges that are tested for minimality.
        tables: the circuits by name: ``model`` and ``none``, all edges and no edge; ``circuit``, its ``complement``,
            and the circuit ``without`` each tested edge; ``random`` circuits of its size, and the model with as many
            random edges outside the circuit ``cut``; the circuit with a random ``detour``, and with that detour
            ``broken`` by one edge.
    """

    def __init__(
        self, graph: Graph, circuit: Bool[Tensor, " edge"], values: np.ndarray, *, draws: int, most: int, seed: int
    ) -> None:
        generator = np.random.default_rng(seed)
        n, size = len(graph.edges), int(circuit.sum())
        model = torch.ones(1, n, dtype=torch.bool)
        inside = circuit.nonzero()[:, 0].numpy()
        self.tested_edges = inside[np.argsort(-np.abs(values[inside]), kind="stable")][:most]
        without = circuit.repeat(len(self.tested_edges), 1)
        without[range(len(self.tested_edges)), self.tested_edges] = False
        outside = (~circuit).nonzero()[:, 0].numpy()
        random = torch.zeros(draws, n, dtype=torch.bool)
        cut = model.repeat(draws, 1)
        detour, broken = circuit.repeat(draws, 1), circuit.repeat(draws, 1)
        for draw in range(draws):
            random[draw, generator.permutation(n)[:size]] = True
            if len(outside):
                cut[draw, generator.permutation(outside)[:size]] = False
            path = _random_path(graph, generator)
            new_edges = [edge for edge in path if not circuit[edge]]
            if new_edges:  # a path inside the circuit adds no edge to break
                detour[draw, path] = broken[draw, path] = True
                broken[draw, int(generator.choice(new_edges))] = False
        self.tables: dict[str, Bool[Tensor, "circuit edge"]] = {
            "model": model,
            "none": ~model,
            "circuit": circuit[None],
            "complement": (~circuit)[None],
            "without": without,
            "random": random,
            "cut": cut,
            "detour": detour,
            "broken": broken,
        }


def _random_path(graph: Graph, generator: np.random.Generator) -> list[int]:
    """A random path from the embedding to the logits, as numbers of edges, drawn from the logits back."""
    numbers = {edge: number for number, edge in enumerate(graph.edges)}
    edges_into: dict[str, list[tuple[str, str]]] = {}
    for src, dest in graph.edges:
        edges_into.setdefault(node_of(dest), []).append((src, dest))
    group_size = graph.n_heads // graph.n_kv_heads
    path, node = [], LOGITS
    while node != EMBED:
        candidates = list(edges_into.get(node, []))
        if ".h" in node and group_size > 1:  # a head also reads through its group's keys and values
            layer, head = node.split(".h")
            candidates += edges_into.get(f"{layer}.g{int(head) // group_size}", [])
        src, dest = candidates[int(generator.integers(len(candidates)))]
        path.append(numbers[src, dest])
        node = src
    return path


def _scores(
    runs: CircuitRuns, tables: Mapping[str, Bool[Tensor, "_ edge"]], execution: Execution
) -> dict[str, Float[np.ndarray, "_ prompt"]]:
    """The metric of every circuit, by the names of the tables."""
    scores = runs.scores(torch.cat(list(tables.values())), execution).numpy()
    ends = np.cumsum([len(table) for table in tables.values()])[:-1]
    return dict(zip(tables, np.split(scores, ends), strict=True))


def _variables(
    scores: Mapping[str, Float[np.ndarray, "_ prompt"]], unit: str, *, tolerance: float, seed: int
) -> dict[str, xr.DataArray]:
    """The statistics and p-values from the metric of every circuit."""
    model, circuit, complement = (scores[name][0] for name in ("model", "circuit", "complement"))

    def distance(values: np.ndarray) -> np.ndarray:
        return np.abs((values - model).mean(1))

    gap = abs(float((model - scores["none"][0]).mean()))
    share_above, p_equivalence = sign_test(circuit, model, tie=tolerance * gap)
    hsic, p_independence = independence_test(complement, model, draws=len(scores["random"]), seed=seed)
    of_circuit, of_complement = float(distance(circuit[None])[0]), float(distance(complement[None])[0])
    loss = np.abs((scores["without"] - circuit).mean(1))
    loss_random = np.abs((scores["broken"] - scores["detour"]).mean(1))
    p_edge = holm(np.array([exceedance(value, loss_random) for value in loss]))
    tests = {
        "equivalence": (share_above, p_equivalence),
        "independence": (hsic, p_independence),
        "sufficiency": (of_circuit, exceedance(-of_circuit, -distance(scores["random"]))),
        "necessity": (of_complement, exceedance(of_complement, distance(scores["cut"]))),
        "minimality": (float((p_edge <= 0.05).mean()), float(p_edge.max())),
    }
    statistic, p = (np.array([tests[name][at] for name in _TESTS]) for at in (0, 1))
    meaning = (
        "share of prompts above the model; HSIC; distance of the circuit from the model; distance of its complement; "
        "share of edges needed at 0.05"
    )
    return {
        "p": variable(("test",), p, "probability", "p-value"),
        "statistic": variable(("test",), statistic, "of the test", meaning),
        "loss": variable(("edge",), loss, unit, "change of the circuit's metric without the edge"),
        "p_edge": variable(("edge",), p_edge, "probability", "p-value of being needed, corrected (Holm)"),
        "loss_random": variable(("draw",), loss_random, unit, "change without an edge of a random detour"),
    }
