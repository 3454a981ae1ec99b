"""The result of a method that scores edges, in one form for all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import xarray as xr
from jaxtyping import Float

from mechxai.core.graph import Graph
from mechxai.core.method import Method
from mechxai.core.result import Result, variable
from mechxai.methods.circuits._lib.prepared_graph import PreparedGraph
from mechxai.methods.result_parts import bounded, run_info

ARROW = " -> "


@dataclass(frozen=True)
class EdgeScores:
    """A score for every edge and prompt.

    Attributes:
        graph: the graph.
        scores: positive where the edge supports the behaviour, ``[prompt, edge]``.
        unit: the metric's.
        meaning: of a score, in words.
        clean: the metric of the clean prompts.
        corrupted: the metric of the corrupted prompts, or of the reference activations.
    """

    graph: Graph
    scores: Float[np.ndarray, "prompt edge"]
    unit: str
    meaning: str
    clean: Float[np.ndarray, " prompt"]
    corrupted: Float[np.ndarray, " prompt"]


def edge_result(
    method: Method,
    prepared: PreparedGraph,
    edges: EdgeScores,
    *,
    cost: Mapping[str, float],
    notes: Sequence[str] = (),
) -> Result:
    """The result of a method that scores edges.

    Returns:
        ``value`` [edge], the mean over prompts, with 95 % intervals ``value_low``, ``value_high`` over prompts;
        ``per_example`` [prompt, edge]; coords ``src``, ``dest``; ``baseline_clean``, ``baseline_corrupted`` [prompt].
    """
    data = {
        **bounded("value", ("edge",), edges.scores, units=edges.unit, meaning=edges.meaning),
        "per_example": variable(("prompt", "edge"), edges.scores.astype(np.float32), edges.unit, edges.meaning),
        "baseline_clean": variable(("prompt",), edges.clean, edges.unit, "metric of the clean prompts"),
        "baseline_corrupted": variable(("prompt",), edges.corrupted, edges.unit, "metric of the corrupted prompts"),
    }
    coords = {**edge_coords(edges.graph.edges), "prompt": list(range(len(edges.scores)))}
    info = run_info(method, prepared.model, prepared.batch, cost=cost, notes=tuple(notes))
    return Result(xr.Dataset(data, coords=coords), info)


def edge_coords(edges: Sequence[tuple[str, str]]) -> dict[str, object]:
    """The coordinates of the dim ``edge``: the edge's name, and its ends ``src`` and ``dest``."""
    names, src, dest = _edge_labels(tuple(edges))
    return {"edge": names, "src": ("edge", src), "dest": ("edge", dest)}


@lru_cache(maxsize=4)
def _edge_labels(edges: tuple[tuple[str, str], ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Names, sources and destinations, ``[edge]`` each."""
    src, dest = (np.array([edge[end] for edge in edges]) for end in (0, 1))
    return np.array([ARROW.join(edge) for edge in edges]), src, dest
