"""The clean and the corrupted run of some prompts, and gradients between them, from the first position that differs.

Before that position both runs are the same and no edge differs, so earlier positions run once and give only keys and
values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.engine.contrast import Run
from mechxai.engine.progress import notify_listener
from mechxai.engine.sweep import run_tokens
from mechxai.methods.circuits._lib.prepared_graph import PreparedGraph
from mechxai.methods.circuits._lib.stream_scores import stream_scorer
from mechxai.model.backends.base import frozen
from mechxai.model.dense.run import Start
from mechxai.model.graph.gradients import Gradients, reader_gradients
from mechxai.model.graph.writes import Streams, Writes, Written, embedded, writes

_POINTS_AT_ONCE = 5


@dataclass(frozen=True)
class GradientPoint:
    """A residual stream to take gradients at.

    Attributes:
        residual: the residual stream that the run starts from, ``[prompt, pos, d_model]``.
        weight: of its gradients.
        run: the run that starts there, ``clean`` or ``corrupted``; None for a point between them.
    """

    residual: Streams
    weight: float
    run: Run | None = None


@dataclass(frozen=True)
class Endpoint:
    """The clean or the corrupted run, from the first position that differs.

    Attributes:
        written: the output of every writer.
        scores: the metric.
    """

    written: Written
    scores: Float[Tensor, " prompt"]


class PairRuns:
    """Both runs of some prompts.

    Args:
        prepared: the graph, prompts and metric.
        full_run: which of the two is run over all positions, without gradients.
        skip_shared: whether positions before the first difference are skipped; not where other activations than those
            of the two runs come in.

    Attributes:
        embeds: the output of ``embed`` in each run.
        full: the run over all positions, from the first difference.
        computed_share: share of the positions that every other run computes.
    """

    def __init__(self, prepared: PreparedGraph, *, full_run: Run, skip_shared: bool) -> None:
        batch, metric = prepared.batch, prepared.metric
        self._blocks, self._model, self._n_prompts = prepared.blocks, prepared.model, len(batch)
        self._score = stream_scorer(prepared)
        embeds = {run: embedded(prepared.model, run_tokens(batch, run, metric)[0]) for run in get_args(Run)}
        n_pos = embeds[full_run].shape[1]
        first = min(int(batch.first_difference.min()), n_pos - 1) if skip_shared else 0
        full = writes(prepared.blocks, embeds[full_run])
        self._shared = full.residuals[-1][:, :first]
        self._before = full.kept.up_to(first) if first else None
        self.embeds = {run: embed[:, first:] for run, embed in embeds.items()}
        self.full = full.later(first)
        self._endpoints = {full_run: self._endpoint(self.full)}
        self.computed_share = 1 - first / n_pos

    def _endpoint(self, run: Writes) -> Endpoint:
        with torch.no_grad():
            return Endpoint(run.values, self.score(run.residuals[-1]))

    def endpoint(self, run: Run) -> Endpoint:
        """The writers' output in a run, and its metric. Cost: a pass the first time."""
        if run not in self._endpoints:
            self._endpoints[run] = self._endpoint(writes(self._blocks, self.embeds[run], before=self._before))
        return self._endpoints[run]

    def score(self, last: Streams) -> Float[Tensor, " row"]:
        """The metric of several runs of the prompts in turn, from the last block's output at their positions."""
        turns = last.unflatten(0, (-1, self._n_prompts))
        return torch.cat([self._score(torch.cat([self._shared, turn], 1)) for turn in turns])

    def gradients(self, points: Sequence[GradientPoint], *, layer: int = 0, mid: bool = False) -> Gradients:
        """Gradients at the readers after a start, summed with the points' weights. Cost: two passes a point."""
        start = Start(layer, mid, self._before)
        gradients = self._gradients(points[:_POINTS_AT_ONCE], start)
        for low in range(_POINTS_AT_ONCE, len(points), _POINTS_AT_ONCE):
            notify_listener()
            gradients.add(self._gradients(points[low : low + _POINTS_AT_ONCE], start))
        return gradients

    def _gradients(self, points: Sequence[GradientPoint], start: Start) -> Gradients:
        """Gradients of a few points at once; endpoints among them are stored."""
        new_endpoints = {
            turn: point.run for turn, point in enumerate(points) if point.run and point.run not in self._endpoints
        }
        with frozen(self._model.backend):
            gradients = reader_gradients(
                self._blocks,
                torch.cat([point.residual for point in points]),
                self.score,
                start=start,
                weights=[point.weight for point in points],
                written=list(new_endpoints),
            )
        for turn, run in new_endpoints.items():
            self._endpoints[run] = Endpoint(gradients.written[turn], gradients.scores[turn])
        return gradients
