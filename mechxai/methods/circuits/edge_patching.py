"""Edge patching: what every edge of the model carries of a behaviour, exactly, one edge at a time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

import numpy as np

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import check_choice
from mechxai.core.grid import Position
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import Result
from mechxai.engine.contrast import DIRECTIONS, baselines, with_reference
from mechxai.engine.execution import Execution
from mechxai.engine.multi_sweep import distinct_notes, total_cost
from mechxai.methods.circuits._lib.edge_effects import EdgeEffects
from mechxai.methods.circuits._lib.edge_result import EdgeScores, edge_result
from mechxai.methods.result_parts import bounded, position_labels
from mechxai.model.graph.writes import graph_blocks
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
        cons="one edge at a time: what two carry together, each alone may not show",
    )
)
@dataclass(frozen=True)
class EdgePatching(Method):
    """One reader sees one writer as it is in the other run; everything after the reader follows.

    ``noise`` runs the clean prompt and lets the edge bring what it brings in the corrupted run (what is needed?);
    ``denoise`` runs the corrupted prompt and lets it bring the clean (what suffices?). The reader's norm is made anew.

    Attributes:
        direction: ``noise`` or ``denoise``.
        metric: what is measured.
        pos: positions (negative from the end) or roles at which each edge is also moved alone.

    Source: the exact effect that edge attribution estimates (Syed et al. 2023, equation 1).
    """

    in_waves: ClassVar[bool] = True

    direction: str = "noise"
    metric: AnyMetric = "logit_diff"
    pos: Sequence[Position] | None = None

    def _check_fields(self) -> None:
        as_metric(self.metric)
        check_choice("direction", self.direction, DIRECTIONS)

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """The effect of every edge, positive where it supports the behaviour; see `edge_result` for the variables.

        Returns:
            With ``pos`` also ``at_position`` [edge, pos], the effect of moving the edge where its reader stands there,
            with intervals; effects at several positions need not add up to that at all.

        Raises:
            SiteError: a role that the prompts lack.
            ModelSupportError: a model whose residual stream is not the sum of what its nodes write.
            ShapeError: answers the metric cannot score.
        """
        started = time.perf_counter()
        metric, batch = as_metric(self.metric), batch.to(model.device)
        metric.check(batch)
        blocks = graph_blocks(model)
        graph = blocks.graph
        batch = with_reference(model, batch, metric)
        known = baselines(model, batch, metric, direction=self.direction)
        effects = EdgeEffects(model, blocks, batch, metric, self.direction)
        values = graph.of_matrix(effects.measured(graph.reads, execution)).numpy()
        places = {label: batch.layout.positions(pos)[0] for label, pos in self._places(batch)}
        alone = [
            known.moved(graph.of_matrix(replace(effects, at=at).measured(graph.reads, execution)).numpy())
            for at in places.values()
        ]
        outcomes = effects.outcomes
        scores = EdgeScores(
            graph,
            known.moved(values),
            metric.unit,
            f"change of {metric.name} that the edge brings",
            known.clean,
            known.corrupted,
        )
        cost = {**total_cost(outcomes), "seconds": time.perf_counter() - started}
        notes = (*distinct_notes(outcomes), *known.notes)
        result = edge_result(self, model, batch, found=scores, cost=cost, notes=notes)
        if not alone:
            return result
        meaning = f"change of {metric.name} that the edge brings at one position"
        by_position = bounded("at_position", ("edge", "pos"), np.stack(alone, 2), units=metric.unit, meaning=meaning)
        return Result(result.data.assign(by_position).assign_coords(pos=list(places)), result.info)

    def _places(self, batch: ContrastBatch) -> list[tuple[str, Position]]:
        """Labels and positions."""
        return list(zip(position_labels(batch, self.pos or ()), self.pos or (), strict=True))
