"""Scores and circuits held against a circuit that is known: by edge, or by pairs of nodes where no more is known."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int
from sklearn.metrics import roc_auc_score

from mechxai.core.graph import LOGITS, Graph, node_of
from mechxai.core.result import variable


@dataclass(frozen=True)
class Truth:
    """A known circuit.

    Attributes:
        units: what is true or not, of every edge: itself, or its pair of nodes.
        true: which units are.
    """

    units: Int[np.ndarray, " edge"]
    true: Bool[np.ndarray, " unit"]

    @staticmethod
    def of(graph: Graph, edges: Sequence[tuple[str, str]]) -> "Truth":
        """From a list of edges, or of pairs of nodes, such as a head and a head that reads it by whichever input.

        Raises:
            SiteError: an edge that the graph does not have.
        """
        nodes = {node_of(reader) for reader in graph.readers} - {LOGITS}
        by_node = any(dest in nodes and dest not in graph.readers for _, dest in edges)
        if not by_node:
            true = np.zeros(len(graph.edges), bool)
            true[graph.numbers(list(edges)).numpy()] = True
            return Truth(np.arange(len(true)), true)
        pairs = [(src, node_of(dest)) for src, dest in graph.edges]
        numbers = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
        graph.numbers([edge for edge in edges if edge not in numbers])  # refuses what is neither
        true = np.zeros(len(numbers), bool)
        true[[numbers[src, node_of(dest)] for src, dest in edges]] = True
        return Truth(np.array([numbers[pair] for pair in pairs]), true)

    def largest(self, values: Float[np.ndarray, "*more edge"]) -> Float[np.ndarray, "*more unit"]:
        """Of every unit the largest value among its edges."""
        found = np.full((*values.shape[:-1], len(self.true)), -np.inf)
        np.maximum.at(np.moveaxis(found, -1, 0), self.units, np.moveaxis(values, -1, 0))
        return found


def against_truth(
    truth: Truth,
    sizes: Float[np.ndarray, " edge"],
    chosen: Bool[np.ndarray, "fraction edge"],
    *,
    drawn: Float[np.ndarray, "draw edge"] | None = None,
) -> dict[str, xr.DataArray]:
    """How well scores and circuits fit the edges that are known to be true.

    Args:
        truth: the known edges.
        sizes: what edges were ranked by.
        chosen: the circuits.
        drawn: what edges are ranked by with prompts drawn anew, where that is known.
    """
    picked = truth.largest(chosen.astype(float)) > 0
    hits = (picked & truth.true).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = hits / picked.sum(1)
    said, ends = "of the scores, on the known edges", dict[str, xr.DataArray]()
    if drawn is not None:
        low, high = np.percentile([roc_auc_score(truth.true, truth.largest(one)) for one in drawn], [2.5, 97.5])
        ends["auroc_low"] = variable((), float(low), "probability", f"{said}, 95 % over prompts, low")
        ends["auroc_high"] = variable((), float(high), "probability", f"{said}, 95 % over prompts, high")
    return {
        "auroc": variable((), float(roc_auc_score(truth.true, truth.largest(sizes))), "probability", said),
        **ends,
        "precision": variable(("fraction",), precision, "fraction", "known edges among the circuit's"),
        "recall": variable(("fraction",), hits / truth.true.sum(), "fraction", "of the known edges, in the circuit"),
        "known": variable(("edge",), truth.true[truth.units], "truth", "whether the edge is of the known circuit"),
    }
