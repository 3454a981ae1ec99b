"""A score per edge in one form, whichever method gave it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import xarray as xr
from jaxtyping import Float

from mechxai.core.batch import ContrastBatch
from mechxai.core.graph import Graph
from mechxai.core.method import Method
from mechxai.core.result import Result, variable
from mechxai.methods.result_parts import bounded, run_info
from mechxai.model.hooked_model import HookedModel

ARROW = " -> "


@dataclass(frozen=True)
class EdgeScores:
    """What was found of a graph's edges.

    Attributes:
        graph: the graph.
        scores: positive where the edge supports the behaviour, ``[prompt, edge]``.
        unit: the metric's.
        meaning: of a score, in words.
        clean: the metric of the clean prompts; likewise ``corrupted``, or what stands in for them.
    """

    graph: Graph
    scores: Float[np.ndarray, "prompt edge"]
    unit: str
    meaning: str
    clean: Float[np.ndarray, " prompt"]
    corrupted: Float[np.ndarray, " prompt"]


def edge_result(
    method: Method,
    model: HookedModel,
    batch: ContrastBatch,
    *,
    found: EdgeScores,
    cost: Mapping[str, float],
    notes: Sequence[str] = (),
) -> Result:
    """The result of a method that scores edges.

    Returns:
        ``value`` [edge], the mean over prompts, with 95 % intervals ``value_low``, ``value_high`` over prompts;
        ``per_example`` [prompt, edge]; coords ``src``, ``dest``; ``baseline_clean``, ``baseline_corrupted`` [prompt].
    """
    data = {
        **bounded("value", ("edge",), found.scores, units=found.unit, meaning=found.meaning),
        "per_example": variable(("prompt", "edge"), found.scores.astype(np.float32), found.unit, found.meaning),
        "baseline_clean": variable(("prompt",), found.clean, found.unit, "metric of the clean prompts"),
        "baseline_corrupted": variable(("prompt",), found.corrupted, found.unit, "metric of the corrupted prompts"),
    }
    coords = {**edge_coords(found.graph.edges), "prompt": list(range(len(found.scores)))}
    info = run_info(method, model, batch, cost=cost, notes=tuple(notes))
    return Result(xr.Dataset(data, coords=coords), info)


def edge_coords(edges: Sequence[tuple[str, str]]) -> dict[str, object]:
    """The coordinates of a dim ``edge``: its name, and its ends ``src`` and ``dest``."""
    names, src, dest = _named(tuple(edges))
    return {"edge": names, "src": ("edge", src), "dest": ("edge", dest)}


@lru_cache(maxsize=4)
def _named(edges: tuple[tuple[str, str], ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    src, dest = (np.array([edge[end] for edge in edges]) for end in (0, 1))
    return np.array([ARROW.join(edge) for edge in edges]), src, dest
