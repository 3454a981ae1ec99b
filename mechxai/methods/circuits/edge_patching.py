"""Edge patching: the exact effect of patching every edge, one edge at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

import numpy as np

from mechxai.core.batch import ContrastBatch
from mechxai.core.grid import Position
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import Result
from mechxai.core.shapes import PromptInts
from mechxai.engine.contrast import Direction, baselines
from mechxai.engine.execution import Execution
from mechxai.methods.circuits._lib.edge_effects import EdgeEffects
from mechxai.methods.circuits._lib.edge_result import EdgeScores, edge_result
from mechxai.methods.circuits._lib.prepared_graph import prepare_graph
from mechxai.methods.result_parts import bounded, position_labels
from mechxai.model.hooked_model import HookedModel


@final
@register(
    MethodCard(
        name="edge_patching",
        family="circuits",
        kind="edges",
        question="Which edges between heads and MLPs carry the behaviour, exactly?",
        cost="one suffix of a forward pass per edge and prompt, from the edge's reader on",
        source="Wang et al. 2022 (arXiv 2211.00593), section 3; Conmy et al. 2023 (arXiv 2304.14997)",
        pros="exact: the ground truth of every approximation",
        cons="one edge at a time: an effect that two edges carry together may show in neither",
    )
)
@dataclass(frozen=True)
class EdgePatching(Method):
    """One reader sees one writer's output from the other run; everything after the reader is recomputed.

    ``noise`` runs the clean prompt with the writer's corrupted output (is the edge necessary?); ``denoise`` runs the
    corrupted prompt with its clean output (is the edge sufficient?). The reader's norm is recomputed.

    Attributes:
        direction: ``noise`` or ``denoise``.
        metric: the metric.
        pos: positions (negative from the end) or roles at which each edge is also patched alone.

    Source: the exact effect that edge attribution estimates (Syed et al. 2023, equation 1).
    """

    in_waves: ClassVar[bool] = True

    direction: Direction = "noise"
    metric: AnyMetric = "logit_diff"
    pos: Sequence[Position] | None = None

    def _check_fields(self) -> None:
        as_metric(self.metric)

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """The effect of every edge, positive where it supports the behaviour; see `edge_result` for the variables.

        Returns:
            With ``pos`` also ``at_position`` [edge, pos], the effect of patching the edge at its reader's position,
            with intervals; effects at single positions need not add up to the effect at all positions.

        Raises:
            SiteError: a role that the prompts lack.
            ModelSupportError: a model whose residual stream is not the sum of what its nodes write.
            ShapeError: answers the metric cannot score.
        """
        prepared = prepare_graph(model, batch, self.metric).with_clean_logprobs()
        graph, batch, metric = prepared.graph, prepared.batch, prepared.metric
        contrast = baselines(model, batch, metric, direction=self.direction)
        places = self._places(batch)
        effects = EdgeEffects(prepared, self.direction)
        scores = EdgeScores(
            graph,
            contrast.moved(graph.of_matrix(effects.scores(graph.reads, execution)).numpy()),
            metric.unit,
            f"change of {metric.name} that the edge brings",
            contrast.clean,
            contrast.corrupted,
        )
        by_position = [
            contrast.moved(graph.of_matrix(replace(effects, positions=at).scores(graph.reads, execution)).numpy())
            for at in places.values()
        ]
        notes = (*noted(effects.outcomes), *contrast.notes)
        cost = prepared.cost(summed(effects.outcomes))
        result = edge_result(self, prepared, scores, cost=cost, notes=notes)
        if not places:
            return result
        meaning = f"change of {metric.name} that the edge brings at one position"
        dims = ("edge", "pos")
        data = bounded("at_position", dims, np.stack(by_position, 2), units=metric.unit, meaning=meaning)
        return Result(result.data.assign(data).assign_coords(pos=list(places)), result.info)

    def _places(self, batch: ContrastBatch) -> dict[str, PromptInts]:
        """The label of each position in ``pos``, and where it is in every prompt."""
        positions = self.pos or ()
        at = [batch.layout.positions(pos)[0] for pos in positions]
        return dict(zip(position_labels(batch, positions), at, strict=True))
