"""Edge patching: what every edge of the model carries of a behaviour, exactly, one edge at a time."""

import time
from dataclasses import dataclass
from typing import final

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import check_choice
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import Result
from mechxai.engine.contrast import DIRECTIONS, baselines, with_reference
from mechxai.engine.execution import Execution
from mechxai.engine.several import noted, summed
from mechxai.methods.circuits.edge_effects import EdgeEffects
from mechxai.methods.circuits.edge_result import EdgeScores, edge_result
from mechxai.model.graph_writes import graph_blocks
from mechxai.model.hooked_model import HookedModel


@final
@register(
    MethodCard(
        name="edge_patching",
        family="circuits",
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

    Source: the exact effect that edge attribution estimates (Syed et al. 2023, equation 1).
    """

    direction: str = "noise"
    metric: AnyMetric = "logit_diff"

    def __post_init__(self) -> None:
        as_metric(self.metric)
        check_choice("direction", self.direction, DIRECTIONS)

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """The effect of every edge, positive where it supports the behaviour; see `edge_result` for the variables.

        Raises:
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
        outcomes = effects.outcomes
        scores = EdgeScores(
            graph,
            known.moved(values),
            metric.unit,
            f"change of {metric.name} that the edge brings",
            known.clean,
            known.corrupted,
        )
        cost = {**summed(outcomes), "seconds": time.perf_counter() - started}
        notes = (*noted(outcomes), *known.notes)
        return edge_result(self, model, batch, found=scores, cost=cost, notes=notes)
