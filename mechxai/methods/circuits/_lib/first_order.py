"""First-order edge scores from gradients, integrated between the two runs' embeddings or for each writer by itself."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.graph import Graph
from mechxai.engine.contrast import Run
from mechxai.methods.circuits._lib.pair_runs import GradientPoint, PairRuns
from mechxai.model.graph.gradients import Gradients
from mechxai.model.graph.writes import Blocks, Written, joint_move, moves

Steps = Sequence[tuple[float, float]]  # positions between reference (0) and clean run (1), and their weights
_RUN_AT: dict[float, Run] = {0.0: "corrupted", 1.0: "clean"}


@dataclass(frozen=True)
class FirstOrderScores:
    """Scores of the edges on some prompts.

    Attributes:
        blocks: the model's, with their graph.
        runs: the clean and the corrupted run of the prompts.
        steps: where between the runs gradients are taken.
        reference_writes: a function of ``like``, a tensor of the shape wanted, that gives the writers' reference
            output; None for their output in the corrupted run.
    """

    blocks: Blocks
    runs: PairRuns
    steps: Steps
    reference_writes: Callable[..., Written] | None = None

    def along_inputs(self) -> Float[Tensor, "prompt reader writer"]:
        """Scores with gradients between the corrupted embeddings and the clean ones. Cost: two passes a step."""
        clean, corrupted = self.runs.embeds["clean"], self.runs.embeds["corrupted"]
        points = [
            GradientPoint(corrupted + at * (clean - corrupted), weight, _RUN_AT.get(at)) for at, weight in self.steps
        ]
        gradients = self.runs.gradients(points)
        return products(self.blocks.graph, self._moves(), gradients)

    def along_writers(self) -> Float[Tensor, "prompt reader writer"]:
        """Scores with gradients between the reference and the clean output of each writer, all else clean.

        Cost: two passes a step from each writer on.
        """
        clean_writes, reference_writes = self._clean, self._reference
        changes = -moves(self.blocks, clean_writes, reference_writes)
        clean, graph = self.runs.full, self.blocks.graph
        scores = changes.new_zeros(changes.shape[1], *graph.reads.shape, dtype=torch.float32)
        for group in _writer_groups(graph):
            residual = clean.middles[group.layer] if group.mid else clean.residuals[group.layer]
            change = -joint_move(self.blocks, clean_writes, reference_writes, writers=group.writers)
            points = [GradientPoint(residual + (at - 1) * change, weight) for at, weight in self.steps]
            gradients = self.runs.gradients(points, layer=group.layer, mid=group.mid)
            scores += products(graph, changes, gradients, writers=group.writers)
        return scores

    def _moves(self) -> Written:
        """What every writer adds in the clean run, minus what it would add with its reference output."""
        return -moves(self.blocks, self._clean, self._reference)

    @property
    def _clean(self) -> Written:
        return self.runs.endpoint("clean").written

    @property
    def _reference(self) -> Written:
        if self.reference_writes is not None:
            return self.reference_writes(like=self._clean)
        return self.runs.endpoint("corrupted").written


@dataclass(frozen=True)
class _WriterGroup:
    """Writers that write into the same residual stream.

    Attributes:
        writers: their numbers.
        layer: the block that reads the residual stream after them; the number of blocks for none.
        mid: whether that block's MLP reads it first.
    """

    writers: slice
    layer: int
    mid: bool


def _writer_groups(graph: Graph) -> Iterator[_WriterGroup]:
    """The embedding, the heads of each layer, its MLP.

    Yields:
        The groups in order of the layers.
    """
    yield _WriterGroup(slice(0, 1), 0, mid=False)
    for layer in range(graph.n_layers):
        n = graph.n_before_attention(layer)
        serial = graph.mlps and not graph.parallel
        yield _WriterGroup(slice(n, n + graph.n_heads), layer if serial else layer + 1, mid=serial)
        if graph.mlps:
            yield _WriterGroup(slice(n + graph.n_heads, n + graph.n_heads + 1), layer + 1, mid=False)


def passes_from_writers(graph: Graph) -> float:
    """Forward passes that one run from each group of writers on adds up to."""
    return sum(1 - group.layer / graph.n_layers for group in _writer_groups(graph))


def products(
    graph: Graph, moves: Written, gradients: Gradients, *, writers: slice = slice(None)
) -> Float[Tensor, "prompt reader writer"]:
    """Every writer's move times the gradient at every reader that sees it; 0 where there is no edge.

    Args:
        graph: the model's.
        moves: of all writers.
        gradients: at readers.
        writers: whose products to take.
    """
    low, high, _ = writers.indices(len(moves))
    by_prompt = moves.transpose(0, 1).flatten(2)  # [prompt, writer, pos * d_model]
    total = moves.new_zeros(moves.shape[1], *graph.reads.shape, dtype=torch.float32)
    for readers in gradients.readers:
        seen = slice(low, min(high, readers.seen))
        gradient = readers.values.transpose(0, 1).flatten(2)  # [prompt, reader, pos * d_model]
        total[:, readers.rows, seen] = (gradient @ by_prompt[:, seen].transpose(1, 2)).float()
    return total
