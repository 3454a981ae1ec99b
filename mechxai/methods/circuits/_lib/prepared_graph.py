"""The start of every edge method: the model's graph, the prompts on its device, and the metric checked against them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mechxai.core.batch import ContrastBatch
from mechxai.core.graph import Graph
from mechxai.core.metric import AnyMetric, Metric, as_metric
from mechxai.core.work_clock import work_seconds
from mechxai.engine.contrast import with_reference
from mechxai.model.graph.writes import Blocks, graph_blocks
from mechxai.model.hooked_model import HookedModel


@dataclass(frozen=True)
class PreparedGraph:
    """A model's graph with the prompts and the metric of one call of a method.

    Attributes:
        model: the model.
        blocks: its blocks as plain tensors, with their graph.
        batch: the prompts, on the model's device.
        metric: the metric, checked against the prompts.
        started: `work_seconds` when the call began, in seconds.
    """

    model: HookedModel
    blocks: Blocks
    batch: ContrastBatch
    metric: Metric
    started: float = field(default_factory=work_seconds)

    @property
    def graph(self) -> Graph:
        """The model's graph of nodes and edges."""
        return self.blocks.graph

    def on(self, batch: ContrastBatch) -> "PreparedGraph":
        """The same graph and metric with other prompts."""
        return replace(self, batch=batch)

    def with_clean_logprobs(self) -> "PreparedGraph":
        """The prompts with the clean run's log-probabilities where the metric is a KL divergence.

        Cost: one forward pass per prompt for the KL divergence, none for other metrics.
        """
        return self.on(with_reference(self.model, self.batch, self.metric))

    def cost(self, passes: Mapping[str, float]) -> dict[str, float]:
        """The passes, and the seconds since the call began."""
        return {**passes, "seconds": work_seconds() - self.started}


def prepare_graph(model: HookedModel, batch: ContrastBatch, metric: AnyMetric) -> PreparedGraph:
    """The graph, prompts and metric of a method's call, checked before the first forward pass.

    Raises:
        ConfigError: an unknown metric.
        ModelSupportError: a model whose residual stream is not the sum of what its nodes write.
        ShapeError: answers that the metric cannot score.
    """
    started = work_seconds()
    checked, batch = as_metric(metric), batch.to(model.device)
    checked.check(batch)
    return PreparedGraph(model, graph_blocks(model, batch.n_pos), batch, checked, started)
