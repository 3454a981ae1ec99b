"""From gradients to scores of edges: along the way between two runs, or along that of each writer for itself."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.graph import Graph
from mechxai.methods.circuits._lib.pair_runs import PairRuns, Point
from mechxai.model.graph.gradients import Gradients
from mechxai.model.graph.writes import Written

Steps = Sequence[tuple[float, float]]  # shares of the way from the reference to the clean run, and their weights
_ENDS = {0.0: "corrupted", 1.0: "clean"}


@dataclass(frozen=True)
class FirstOrder:
    """Scores of some prompts' edges.

    Attributes:
        graph: the model's.
        runs: of the prompts.
        steps: where gradients are taken.
        away: what writers write instead, in the shape of what it is given as ``like``; None for the corrupted run.
    """

    graph: Graph
    runs: PairRuns
    steps: Steps
    away: Callable[..., Written] | None = None

    def along_inputs(self) -> Float[Tensor, "prompt reader writer"]:
        """Gradients on the way from the corrupted embeddings to the clean. Cost: two passes a step."""
        clean, corrupted = self.runs.given["clean"], self.runs.given["corrupted"]
        points = [Point(corrupted + at * (clean - corrupted), weight, _ENDS.get(at)) for at, weight in self.steps]
        gradients = self.runs.gradients(points)
        return products(self.graph, self._moves(), gradients)

    def along_writers(self) -> Float[Tensor, "prompt reader writer"]:
        """Gradients on the way of each writer, in the clean run. Cost: two passes a step from each writer on."""
        moves, whole = self._moves(), self.runs.whole
        total = moves.new_zeros(moves.shape[1], *self.graph.reads.shape, dtype=torch.float32)
        for group in _groups(self.graph):
            usual = whole.middles[group.layer] if group.mid else whole.residuals[group.layer]
            change = moves[group.writers].sum(0)
            points = [Point(usual + (at - 1) * change, weight) for at, weight in self.steps]
            gradients = self.runs.gradients(points, layer=group.layer, mid=group.mid)
            total += products(self.graph, moves, gradients, writers=group.writers)
        return total

    def _moves(self) -> Written:
        clean = self.runs.end("clean").written
        return clean - (self.runs.end("corrupted").written if self.away is None else self.away(like=clean))


@dataclass(frozen=True)
class _Group:
    """Writers that write at the same place.

    Attributes:
        writers: their numbers.
        layer: the block that reads the residual stream after them; the number of blocks for none.
        mid: whether its MLP does so first.
    """

    writers: slice
    layer: int
    mid: bool


def _groups(graph: Graph) -> Iterator[_Group]:
    """The embedding, the heads of each layer, its MLP.

    Yields:
        Them in order.
    """
    yield _Group(slice(0, 1), 0, mid=False)
    for layer in range(graph.n_layers):
        n = graph.n_before_attention(layer)
        serial = graph.mlps and not graph.parallel
        yield _Group(slice(n, n + graph.n_heads), layer if serial else layer + 1, mid=serial)
        if graph.mlps:
            yield _Group(slice(n + graph.n_heads, n + graph.n_heads + 1), layer + 1, mid=False)


def later_passes(graph: Graph) -> float:
    """Passes that runs from each writer on come to, together."""
    return sum(1 - group.layer / graph.n_layers for group in _groups(graph))


def products(
    graph: Graph, moves: Written, gradients: Gradients, *, writers: slice = slice(None)
) -> Float[Tensor, "prompt reader writer"]:
    """Every writer's move times the gradient at every reader that sees it; what is no edge stays 0.

    Args:
        graph: the model's.
        moves: of all writers.
        gradients: at readers.
        writers: those that are asked for.
    """
    low, high, _ = writers.indices(len(moves))
    by_prompt = moves.transpose(0, 1).flatten(2)  # [prompt, writer, pos * d_model]
    total = moves.new_zeros(moves.shape[1], *graph.reads.shape, dtype=torch.float32)
    for readers in gradients.readers:
        seen = slice(low, min(high, readers.seen))
        read = readers.values.transpose(0, 1).flatten(2)
        total[:, readers.rows, seen] = (read @ by_prompt[:, seen].transpose(1, 2)).float()
    return total
