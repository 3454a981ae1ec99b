"""Scores and circuits compared with a known circuit, edge by edge, or by pairs of nodes where only those are known."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int
from sklearn.metrics import roc_auc_score

from mechxai.core.graph import LOGITS, Graph, node_of
from mechxai.core.result import variable


@dataclass(frozen=True)
class KnownCircuit:
    """A known circuit as labels of units, which are edges or pairs of nodes.

    Attributes:
        units: the unit of every edge: the edge itself, or its pair of nodes.
        true: whether each unit is in the circuit.
    """

    units: Int[np.ndarray, " edge"]
    true: Bool[np.ndarray, " unit"]

    @staticmethod
    def of(graph: Graph, edges: Sequence[tuple[str, str]]) -> "KnownCircuit":
        """From a list of edges, or of pairs of nodes, such as a head and a head that reads it by whichever input.

        Raises:
            SiteError: an edge that the graph does not have.
        """
        nodes = {node_of(reader) for reader in graph.readers} - {LOGITS}
        by_node = any(dest in nodes and dest not in graph.readers for _, dest in edges)
        if not by_node:
            true = np.zeros(len(graph.edges), bool)
            true[graph.numbers(list(edges)).numpy()] = True
            return KnownCircuit(np.arange(len(true)), true)
        pairs = [(src, node_of(dest)) for src, dest in graph.edges]
        numbers = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
        graph.numbers([edge for edge in edges if edge not in numbers])  # raises where it is neither edge nor pair
        true = np.zeros(len(numbers), bool)
        true[[numbers[src, node_of(dest)] for src, dest in edges]] = True
        return KnownCircuit(np.array([numbers[pair] for pair in pairs]), true)

    def largest(self, values: Float[np.ndarray, "*more edge"]) -> Float[np.ndarray, "*more unit"]:
        """The largest value among the edges of every unit."""
        largest = np.full((*values.shape[:-1], len(self.true)), -np.inf)
        np.maximum.at(np.moveaxis(largest, -1, 0), self.units, np.moveaxis(values, -1, 0))
        return largest


def recovery_variables(
    known: KnownCircuit,
    sizes: Float[np.ndarray, " edge"],
    circuits: Bool[np.ndarray, "fraction edge"],
    *,
    resampled: Float[np.ndarray, "draw edge"] | None = None,
) -> dict[str, xr.DataArray]:
    """How well scores and circuits recover a known circuit: AUROC, precision and recall.

    Args:
        known: the known circuit.
        sizes: the values that edges are ranked by.
        circuits: the circuits, fraction by fraction.
        resampled: the values that edges are ranked by on bootstrap samples of the prompts; for the AUROC's interval.
    """
    picked = known.largest(circuits.astype(float)) > 0
    hits = (picked & known.true).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = hits / picked.sum(1)
    meaning, interval = "of the scores, on the known edges", dict[str, xr.DataArray]()
    if resampled is not None:
        draws = [roc_auc_score(known.true, known.largest(draw)) for draw in resampled]
        for end, bound in zip(("low", "high"), np.percentile(draws, [2.5, 97.5]), strict=True):
            name = f"auroc_{end}"
            interval[name] = variable((), float(bound), "probability", f"{meaning}, 95 % over prompts, {end}")
    auroc = float(roc_auc_score(known.true, known.largest(sizes)))
    return {
        "auroc": variable((), auroc, "probability", meaning),
        **interval,
        "precision": variable(("fraction",), precision, "fraction", "known edges among the circuit's"),
        "recall": variable(("fraction",), hits / known.true.sum(), "fraction", "of the known edges, in the circuit"),
        "known": variable(("edge",), known.true[known.units], "truth", "whether the edge is in the known circuit"),
    }
