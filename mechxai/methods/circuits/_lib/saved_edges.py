"""Edges that were found before: a saved result, or a JSON list of edges, held against the model at hand."""

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
    """Gives the scores of a file, whatever the prompts; asks the model nothing, so it is not listed among the methods.

    A ``.nc`` file is a saved result of a method that scores edges; a ``.json`` file has a list ``edges`` of objects
    with ``src``, ``dest`` and, if it likes, ``score`` (1 where it says nothing). Edges that are not named have none.

    Attributes:
        path: of the file.
    """

    path: str
    card: ClassVar[MethodCard] = MethodCard(
        "saved_edges", "circuits", "Which edges does a circuit file name?", "none", "the file", kind="edges"
    )

    def _check_fields(self) -> None:
        if not Path(self.path).is_file():
            raise ArtifactError(f"The circuit file {self.path} was asked", got="no such file", fix="check the path")

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
            raise SiteError(
                f"The circuit file {self.path} was asked of {model.name}",
                got=f"an edge that {_shape(graph)} cannot have: {_first_unknown(graph, scores)}",
                allowed=nearest(_first_unknown(graph, scores), [ARROW.join(edge) for edge in graph.edges]),
                fix="use the model that the circuit was found in",
            ) from error
        values = np.full(len(graph.edges), np.nan)
        values[numbers] = list(scores.values())
        data = {"value": variable(("edge",), values, "score", f"score in {Path(self.path).name}")}
        info = run_info(self, model, batch, cost={"forward_passes": 0.0})
        return Result(xr.Dataset(data, coords=edge_coords(graph.edges)), info)

    def _scores(self) -> dict[tuple[str, str], float]:
        try:
            found = self._of_result() if self.path.endswith(".nc") else self._of_list()
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"The circuit file {self.path} was asked",
                got=f"no edges in it ({error!r})",
                allowed="a saved result of a method that scores edges; JSON with a list edges of src, dest and score",
            ) from error
        if not found:
            raise ArtifactError(f"The circuit file {self.path} was asked", got="an empty list of edges")
        return found

    def _of_result(self) -> dict[tuple[str, str], float]:
        data = Result.load(self.path).data
        name = "value" if "value" in data else "score"
        ends = zip(data["src"].values.astype(str), data["dest"].values.astype(str), strict=True)
        scored = zip(ends, data[name].values, strict=True)
        return {(str(src), str(dest)): float(value) for (src, dest), value in scored if np.isfinite(value)}

    def _of_list(self) -> dict[tuple[str, str], float]:
        held: Mapping[str, Any] = json.loads(Path(self.path).read_text())
        return {(str(one["src"]), str(one["dest"])): float(one.get("score", 1.0)) for one in held["edges"]}


def is_saved(of: object) -> bool:
    """Whether a name is that of a circuit file."""
    return isinstance(of, str) and of.endswith(SUFFIXES)


def _first_unknown(graph: Graph, scores: Mapping[tuple[str, str], float]) -> str:
    known = set(graph.edges)
    return next(ARROW.join(edge) for edge in scores if edge not in known)


def _shape(graph: Graph) -> str:
    heads = f"{graph.n_heads} heads" + (f" over {graph.n_kv_heads}" if graph.n_kv_heads != graph.n_heads else "")
    return f"a model of {graph.n_layers} layers with {heads}, {'with' if graph.mlps else 'without'} MLPs,"
