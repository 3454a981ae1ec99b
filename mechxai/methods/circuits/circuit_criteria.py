"""The three criteria for a circuit of Wang et al.: faithful, complete, minimal; by knocking out sets of its nodes."""

import time
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import xarray as xr
from jaxtyping import Float

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import Result, variable
from mechxai.engine.execution import Execution
from mechxai.methods.circuits._lib.circuit_runs import CircuitRuns
from mechxai.methods.circuits._lib.discovery import check_discovery, edge_method, found_and_confirmed
from mechxai.methods.circuits._lib.edge_selection import highest, pruned
from mechxai.methods.circuits._lib.knockouts import Knockouts
from mechxai.methods.result_parts import run_info
from mechxai.model.graph.writes import graph_blocks
from mechxai.model.hooked_model import HookedModel


@final
@register(
    MethodCard(
        name="circuit_criteria",
        family="circuits",
        kind="circuit_criteria",
        question="Does a circuit miss a part of the mechanism (completeness), or hold an idle one (minimality)?",
        cost="the method that finds it, and two passes per prompt for each node and set of nodes, twice",
        source="Wang et al. 2022 (arXiv 2211.00593), section 4",
        pros="finds backups that faithfulness alone does not see",
        cons="there are too many sets to try all; some are drawn, one is built greedily",
    )
)
@dataclass(frozen=True)
class CircuitCriteria(Method):
    """``F`` is the metric with all edges outside cut; ``C`` the circuit, ``M`` the model, ``K`` a set of its nodes.

    Faithful: ``F(C)`` is near ``F(M)``. Complete: so is ``F(C - K)`` to ``F(M - K)`` for every ``K``; one set is built
    greedily to be the worst. Minimal: for every node ``v`` there is a ``K`` without which ``v`` is missed, that is,
    ``F(C - K)`` and ``F(C - K - v)`` are far apart. All differences are given as shares of ``F(M) - F(no edge)``.

    Attributes:
        of: the method that scores edges, its name (with its defaults), or a file of edges (``.nc``, ``.json``).
        fraction: of the edges, the circuit before pruning.
        rank: edges by ``absolute`` score, or ``signed``.
        reference: what readers see of writers outside: ``corrupted``, ``zero``, ``mean`` or ``resample``.
        discover: share of the prompts on which edges are found; the others judge. 1 takes all for both.
        split: by ``prompts`` or by ``templates``.
        sets: random sets, each node in half of them.
        greedy: nodes of the set that is built to be the worst.
        draws: random circuits of the size.
        metric: what is measured.
        seed: of all draws.
    """

    of: Any = "edge_attribution"
    fraction: float = 0.05
    rank: str = "absolute"
    reference: str = "corrupted"
    discover: float = 0.5
    split: str = "prompts"
    sets: int = 10
    greedy: int = 3
    draws: int = 20
    metric: AnyMetric = "logit_diff"
    seed: int = 0

    def _check_fields(self) -> None:
        check_discovery(self.of, self.metric, rank=self.rank, away=self.reference, split=self.split)
        shares, counts = (self.fraction, self.discover), (self.sets, self.greedy, self.draws)
        if not all(0 < one <= 1 for one in shares) or min(counts) < 1:
            raise ConfigError(
                "circuit_criteria",
                got=f"fraction={self.fraction}, discover={self.discover}, sets={self.sets}, greedy={self.greedy}, "
                f"draws={self.draws}",
                allowed="shares above 0, up to 1; 1 or more sets, nodes and draws",
            )

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """The criteria.

        Returns:
            ``unfaithful``, how far ``F(C)`` is from ``F(M)``, and ``unfaithful_random`` [draw]; ``incomplete`` [set],
            with ``circuit_without``, ``model_without`` [set], ``F`` itself; ``incomplete_random`` [draw], of random
            circuits and sets; ``missed`` [node], the largest difference that taking out a node makes, and ``given``
            [node], the set beside which it does; ``n_edges``.

        Raises:
            ModelSupportError: a model whose residual stream is not the sum of what its nodes write.
            ConfigError: too few prompts or templates, or an empty circuit.
        """
        started = time.perf_counter()
        metric, batch = as_metric(self.metric), batch.to(model.device)
        metric.check(batch)
        blocks = graph_blocks(model)
        graph = blocks.graph
        found_on, judged_on = found_and_confirmed(batch, self.discover, self.split)
        scores = edge_method(self.of, self.metric)(model, found_on, execution=execution)
        circuit = pruned(graph, highest(scores.data["value"].values, [self.fraction], rank=self.rank))[0]
        runs = CircuitRuns.of(model, blocks, judged_on, metric=metric, kind=self.reference, seed=self.seed)
        knockouts = Knockouts(graph, circuit, runs, execution=execution)
        if not knockouts.nodes:
            raise ConfigError(
                f"circuit_criteria with fraction={self.fraction}",
                got="a circuit without a head or an MLP on a way from the embedding to the logits",
                fix="a larger fraction",
            )
        data, names = self._judged(knockouts, metric.unit)
        coords = {"set": names, "node": knockouts.nodes, "draw": list(range(self.draws))}
        cost = {
            "forward_passes": scores.info.cost.get("forward_passes", 0.0) + 2.0 * knockouts.n_runs * len(judged_on),
            "seconds": time.perf_counter() - started,
        }
        notes = [f"edges outside bring what they bring under reference={self.reference}"]
        if found_on is judged_on:
            notes.append("the circuit was judged on the prompts it was found on")
        return Result(xr.Dataset(data, coords=coords), run_info(self, model, batch, cost=cost, notes=tuple(notes)))

    def _judged(self, knockouts: Knockouts, unit: str) -> tuple[dict[str, xr.DataArray], list[str]]:
        circuit, everything = knockouts.circuit, knockouts.everything
        none, own, whole = knockouts.measured([~everything, circuit, everything])
        generator = np.random.default_rng(self.seed)
        drawn, worst = knockouts.drawn(self.sets, generator), knockouts.worst(self.greedy)
        names = [*map(knockouts.name, drawn), f"greedy: {knockouts.name(worst)}"]
        of_circuit, of_model = knockouts.apart([*drawn, worst])
        missed, given = knockouts.missed(drawn)
        unfaithful_random, incomplete_random = self._random(knockouts, whole, generator)
        gap = abs(whole - none) or np.nan
        what = "share of the metric's gap between no edge and all edges"

        def share(dims: tuple[str, ...], change: Any, said: str) -> xr.DataArray:
            return variable(dims, np.abs(change) / gap, "fraction", f"{what}, {said}")

        said = "the set beside which the node is missed the most"
        data = {
            "missed": share(("node",), missed, "that taking out the node changes at most"),
            "given": variable(("node",), np.array(given), "set", said),
            "incomplete": share(("set",), of_circuit - of_model, "between circuit and model without a set"),
            "circuit_without": variable(("set",), of_circuit, unit, "metric of the circuit without a set"),
            "model_without": variable(("set",), of_model, unit, "metric of the model without a set"),
            "incomplete_random": share(("draw",), incomplete_random, "random circuit and model without a set"),
            "unfaithful": share((), whole - own, "between circuit and model"),
            "unfaithful_random": share(("draw",), unfaithful_random, "between random circuit and model"),
            "n_edges": variable((), int(circuit.sum()), "edges", "edges of the circuit after pruning"),
        }
        return data, names

    def _random(
        self, knockouts: Knockouts, whole: float, generator: np.random.Generator
    ) -> tuple[Float[np.ndarray, " draw"], Float[np.ndarray, " draw"]]:
        """Of random circuits: how far they are from the model, and so without a random half of the circuit's nodes."""
        graph, size = knockouts.graph, float(knockouts.circuit.double().mean())
        drawn = [
            pruned(graph, highest(generator.random(len(graph.edges)), [size], rank="signed"))[0]
            for _ in range(self.draws)
        ]
        sets = knockouts.drawn(self.draws, generator)
        cut = [knockouts.out_of(one, chosen) for one, chosen in zip(drawn, sets, strict=True)]
        model = [knockouts.out_of(knockouts.everything, chosen) for chosen in sets]
        own, without, of_model = np.split(knockouts.measured([*drawn, *cut, *model]), 3)
        return own - whole, without - of_model
