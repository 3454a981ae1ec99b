"""The clean and the corrupted run of some prompts, from the position on at which they differ.

Before it both are the same and no edge differs, so earlier positions are run once and give only keys and values.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.metric import Metric
from mechxai.engine.progress import notify_listener
from mechxai.engine.sweep import run_tokens
from mechxai.methods.circuits._lib.stream_scores import score_of
from mechxai.model.backends.base import frozen
from mechxai.model.dense.run import Start
from mechxai.model.graph.gradients import Gradients, reader_gradients
from mechxai.model.graph.writes import Blocks, Streams, Writes, Written, embedded, writes
from mechxai.model.hooked_model import HookedModel

_TURNS = 5  # runs of the same prompts that go together


@dataclass(frozen=True)
class Point:
    """A run to take gradients in.

    Attributes:
        given: the residual stream at its start, ``[prompt, pos, d_model]``.
        weight: of its gradients.
        end: the run that it is, ``clean`` or ``corrupted``, if it is one of them.
    """

    given: Streams
    weight: float
    end: str | None = None


@dataclass(frozen=True)
class End:
    """One of the two runs, from the position on at which they differ.

    Attributes:
        written: what its nodes write.
        scores: its metric.
    """

    written: Written
    scores: Float[Tensor, " prompt"]


class PairRuns:
    """Both runs of some prompts.

    Args:
        model: the model.
        blocks: its blocks.
        part: the prompts.
        metric: what is measured.
        whole: the run, of both, that is made without gradients.
        apart: whether only positions matter that differ; all do where something else than these runs comes in.
    """

    def __init__(
        self, model: HookedModel, blocks: Blocks, part: ContrastBatch, *, metric: Metric, whole: str, apart: bool
    ) -> None:
        self._blocks, self._model, self._n_prompts = blocks, model, len(part)
        self._score = score_of(model, blocks, part, metric=metric)
        streams = {run: embedded(model, run_tokens(part, run, metric)[0]) for run in ("clean", "corrupted")}
        n_pos = streams[whole].shape[1]
        first = min(int(part.first_difference.min()), n_pos - 1) if apart else 0
        found = writes(blocks, streams[whole])
        self._shared = found.residuals[-1][:, :first]
        self._before = found.kept.up_to(first) if first else None
        self.given = {run: one[:, first:] for run, one in streams.items()}
        self.whole = found.later(first)
        self._ends = {whole: self._end(self.whole)}
        self.computed = 1 - first / n_pos  # share of positions that runs beside the whole one take

    def _end(self, found: Writes) -> End:
        with torch.no_grad():
            return End(found.values, self.score(found.residuals[-1]))

    def end(self, run: str) -> End:
        """What nodes write in a run, and its metric. Cost: a pass, where it is not known yet."""
        if run not in self._ends:
            self._ends[run] = self._end(writes(self._blocks, self.given[run], before=self._before))
        return self._ends[run]

    def score(self, last: Streams) -> Float[Tensor, " row"]:
        """The metric of runs that take turns, from the last block's output at their positions."""
        turns = last.unflatten(0, (-1, self._n_prompts))
        return torch.cat([self._score(torch.cat([self._shared, one], 1)) for one in turns])

    def gradients(self, points: Sequence[Point], *, layer: int = 0, mid: bool = False) -> Gradients:
        """Gradients at the readers from a start on, summed with the points' weights. Cost: two passes a point."""
        found = self._gradients(points[:_TURNS], Start(layer, mid, self._before))
        for low in range(_TURNS, len(points), _TURNS):
            notify_listener()
            found.add(self._gradients(points[low : low + _TURNS], Start(layer, mid, self._before)))
        return found

    def _gradients(self, points: Sequence[Point], start: Start) -> Gradients:
        unknown = {turn: point.end for turn, point in enumerate(points) if point.end and point.end not in self._ends}
        with frozen(self._model.backend):
            found = reader_gradients(
                self._blocks,
                torch.cat([point.given for point in points]),
                self.score,
                start=start,
                weights=[point.weight for point in points],
                written=list(unknown),
            )
        for turn, end in unknown.items():
            self._ends[end] = End(found.written[turn], found.scores[turn])
        return found
