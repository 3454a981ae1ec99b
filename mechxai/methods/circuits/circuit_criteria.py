"""The circuit criteria of Wang et al., faithfulness, completeness and minimality, by knocking out sets of nodes."""

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import xarray as xr
from jaxtyping import Float

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError
from mechxai.core.method import MethodCard, register
from mechxai.core.result import Result, variable
from mechxai.engine.execution import Execution
from mechxai.methods.circuits._lib.circuit_validation import CircuitValidation
from mechxai.methods.circuits._lib.edge_selection import random_circuits
from mechxai.methods.circuits._lib.field_checks import check_at_least, check_share
from mechxai.methods.circuits._lib.knockouts import Knockouts
from mechxai.methods.circuits._lib.prepared_graph import prepare_graph
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
        pros="finds backup heads that faithfulness alone does not show",
        cons="there are too many sets to try all; some are drawn, one is built greedily",
    )
)
@dataclass(frozen=True)
class CircuitCriteria(CircuitValidation):
    """Three criteria; ``F`` is the metric with all edges outside cut, ``C`` the circuit, ``M`` the model.

    Faithful: ``F(C)`` is near ``F(M)``. Complete: ``F(C - K)`` is near ``F(M - K)`` for every set of nodes ``K``; one
    set is built greedily to make them differ most. Minimal: for every node ``v`` there is a ``K`` for which
    ``F(C - K)`` and ``F(C - K - v)`` are far apart. Differences are shares of ``F(M) - F(no edge)``.

    Attributes:
        of: the method that scores edges, its name (with its defaults), or a file of edges (``.nc``, ``.json``).
        fraction: of the edges, the circuit before pruning.
        rank: edges by ``absolute`` score, or ``signed``.
        reference: what readers see of writers outside: ``corrupted``, ``zero``, ``mean`` or ``resample``.
        discover: share of the prompts that find the edges; the others test them. 1 takes all for both.
        split: of the prompts, by ``prompts`` or by ``templates``.
        sets: random sets, each node in half of them.
        greedy: nodes of the greedily built set.
        draws: random circuits of the circuit's size.
        metric: the metric of the runs.
        seed: of all random draws.
    """

    fraction: float = 0.05
    sets: int = 10
    greedy: int = 3
    draws: int = 20

    def _check_fields(self) -> None:
        check_share("fraction", self.fraction)
        check_at_least(1, sets=self.sets, greedy=self.greedy, draws=self.draws)

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """The criteria.

        Returns:
            ``unfaithful``, the distance of ``F(C)`` from ``F(M)``, and ``unfaithful_random`` [draw]; ``incomplete``
            [set], with ``circuit_without``, ``model_without`` [set], ``F`` itself; ``incomplete_random`` [draw], of
            random circuits and sets; ``missed`` [node], the largest difference that knocking out a node makes, and
            ``given`` [node], the set beside which it makes it; ``n_edges``.

        Raises:
            ModelSupportError: a model whose residual stream is not the sum of what its nodes write.
            ConfigError: too few prompts or templates, or an empty circuit.
        """
        prepared = prepare_graph(model, batch, self.metric)
        with self._split_runs(prepared, execution) as runs:
            discovery = self._discovery(runs, execution)
            circuit = self._circuit(prepared, discovery.data["value"].values, self.fraction)
            knockouts = Knockouts(prepared.graph, circuit, runs.tests, execution=execution)
            if not knockouts.nodes:
                raise ConfigError(
                    f"The circuit of fraction={self.fraction} has no head or MLP between the embedding and the logits",
                    fix="Use a larger fraction",
                )
            data, set_names = self._criteria(knockouts, prepared.metric.unit)
            coords = {"set": set_names, "node": knockouts.nodes, "draw": list(range(self.draws))}
            n_runs = knockouts.n_runs * runs.n_test_prompts
            return self._result(runs, data, coords, discovery=discovery, n_runs=n_runs)

    def _criteria(self, knockouts: Knockouts, unit: str) -> tuple[dict[str, xr.DataArray], list[str]]:
        """The variables of the result, and the names of the sets."""
        circuit, all_edges = knockouts.circuit, knockouts.all_edges
        f_none, f_circuit, f_model = knockouts.mean_scores([~all_edges, circuit, all_edges])
        generator = np.random.default_rng(self.seed)
        sets, greedy = knockouts.random_sets(self.sets, generator), knockouts.greedy_set(self.greedy)
        set_names = [*map(knockouts.set_name, sets), f"greedy: {knockouts.set_name(greedy)}"]
        circuit_without, model_without = knockouts.scores_without([*sets, greedy])
        missed, beside = knockouts.node_effects(sets)
        unfaithful_random, incomplete_random = self._random(knockouts, f_model, generator)
        gap = abs(f_model - f_none) or np.nan

        def share(dims: tuple[str, ...], change: Any, meaning: str) -> xr.DataArray:
            long_name = f"share of the metric's gap between no edge and all edges, {meaning}"
            return variable(dims, np.abs(change) / gap, "fraction", long_name)

        data = {
            "missed": share(("node",), missed, "largest change by knocking out the node"),
            "given": variable(("node",), np.array(beside), "set", "set beside which the node makes that change"),
            "incomplete": share(("set",), circuit_without - model_without, "between circuit and model without a set"),
            "circuit_without": variable(("set",), circuit_without, unit, "metric of the circuit without a set"),
            "model_without": variable(("set",), model_without, unit, "metric of the model without a set"),
            "incomplete_random": share(("draw",), incomplete_random, "between random circuit and model without a set"),
            "unfaithful": share((), f_model - f_circuit, "between circuit and model"),
            "unfaithful_random": share(("draw",), unfaithful_random, "between random circuit and model"),
            "n_edges": variable((), int(circuit.sum()), "edges", "edges of the circuit after pruning"),
        }
        return data, set_names

    def _random(
        self, knockouts: Knockouts, f_model: float, generator: np.random.Generator
    ) -> tuple[Float[np.ndarray, " draw"], Float[np.ndarray, " draw"]]:
        """Random circuit minus model, whole and without a random half of the circuit's nodes."""
        size = float(knockouts.circuit.double().mean())
        circuits = list(random_circuits(knockouts.graph, [size], draws=self.draws, generator=generator))
        sets = knockouts.random_sets(self.draws, generator)
        cut_circuits = [knockouts.without(circuit, nodes) for circuit, nodes in zip(circuits, sets, strict=True)]
        cut_models = [knockouts.without(knockouts.all_edges, nodes) for nodes in sets]
        scores = knockouts.mean_scores([*circuits, *cut_circuits, *cut_models])
        f_random, random_without, model_without = np.split(scores, 3)
        return f_random - f_model, random_without - model_without
