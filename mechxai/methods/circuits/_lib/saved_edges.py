"""Edge scores read from a circuit file: a saved result, or a JSON list of edges."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import xarray as xr

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ArtifactError, SiteError, nearest
from mechxai.core.graph import Graph
from mechxai.core.method import Method, MethodCard
from mechxai.core.result import Result, variable
from mechxai.engine.execution import Execution
from mechxai.methods.circuits._lib.edge_result import ARROW, edge_coords
from mechxai.methods.result_parts import run_info
from mechxai.model.graph.writes import graph_blocks
from mechxai.model.hooked_model import HookedModel

SUFFIXES = (".nc", ".json")


@final
@dataclass(frozen=True)
class SavedEdges(Method):
    """The edge scores of a file, whatever the prompts; it runs no model, so it is not a registered method.

    A ``.nc`` file is a saved result of a method that scores edges; a ``.json`` file has a list ``edges`` of objects
    with ``src``, ``dest`` and optionally ``score`` (1 by default). Edges that the file does not name have no score.

    Attributes:
        path: of the file.
    """

    path: str
    card: ClassVar[MethodCard] = MethodCard(
        "saved_edges", "circuits", "Which edges does a circuit file name?", "none", "the file", kind="edges"
    )

    def _check_fields(self) -> None:
        if not Path(self.path).is_file():
            raise ArtifactError(f"The circuit file {self.path} does not exist", fix="Check the path")

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """``value`` [edge], NaN for edges that the file does not name.

        Raises:
            SiteError: an edge that the model does not have.
            ArtifactError: a file that holds no edges.
        """
        del execution
        graph = graph_blocks(model).graph
        scores = self._scores()
        try:
            numbers = graph.numbers(list(scores)).numpy()
        except SiteError as error:
            edge = _first_unknown(graph, scores)
            raise SiteError(
                f"The circuit file {self.path} does not fit {model.name} ({_shape(graph)}): there is no edge {edge}. "
                f"{nearest(edge, [ARROW.join(known) for known in graph.edges])}",
                fix="Use the model that the circuit was found in",
            ) from error
        values = np.full(len(graph.edges), np.nan)
        values[numbers] = list(scores.values())
        data = {"value": variable(("edge",), values, "score", f"score in {Path(self.path).name}")}
        info = run_info(self, model, batch, cost={"forward_passes": 0.0})
        return Result(xr.Dataset(data, coords=edge_coords(graph.edges)), info)

    def _scores(self) -> dict[tuple[str, str], float]:
        """The score of every edge that the file names."""
        try:
            scores = self._scores_of_result() if self.path.endswith(".nc") else self._scores_of_list()
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"The circuit file {self.path} holds no edges ({error!r})",
                allowed="a saved result of a method that scores edges; JSON with a list edges of src, dest and score",
            ) from error
        if not scores:
            raise ArtifactError(f"The circuit file {self.path} has an empty list of edges")
        return scores

    def _scores_of_result(self) -> dict[tuple[str, str], float]:
        data = Result.load(self.path).data
        name = "value" if "value" in data else "score"
        ends = zip(data["src"].values.astype(str), data["dest"].values.astype(str), strict=True)
        scored = zip(ends, data[name].values, strict=True)
        return {(str(src), str(dest)): float(value) for (src, dest), value in scored if np.isfinite(value)}

    def _scores_of_list(self) -> dict[tuple[str, str], float]:
        content: Mapping[str, Any] = json.loads(Path(self.path).read_text())
        return {(str(edge["src"]), str(edge["dest"])): float(edge.get("score", 1.0)) for edge in content["edges"]}


def is_saved(of: object) -> bool:
    """Whether a field ``of`` is the path of a circuit file."""
    return isinstance(of, str) and of.endswith(SUFFIXES)


def _first_unknown(graph: Graph, scores: Mapping[tuple[str, str], float]) -> str:
    known = set(graph.edges)
    return next(ARROW.join(edge) for edge in scores if edge not in known)


def _shape(graph: Graph) -> str:
    """The model's layers and heads in words."""
    heads = f"{graph.n_heads} heads" + (f" over {graph.n_kv_heads}" if graph.n_kv_heads != graph.n_heads else "")
    return f"{graph.n_layers} layers with {heads}, {'with' if graph.mlps else 'without'} MLPs"
