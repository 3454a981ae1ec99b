"""The metric read from the last block's output, and the memory budget of a sub-batch."""

from collections.abc import Callable

import torch
from torch import Tensor

from mechxai.core.metric import Metric
from mechxai.engine.chunk import metric_values
from mechxai.engine.execution import Execution
from mechxai.methods.circuits._lib.prepared_graph import PreparedGraph
from mechxai.model.backends.hooks import gathered
from mechxai.model.backends.memory import available_bytes
from mechxai.model.graph.writes import Streams
from mechxai.model.hooked_model import HookedModel

_MEMORY_SHARE = 0.25


def stream_scorer(prepared: PreparedGraph) -> Callable[[Streams], Tensor]:
    """A differentiable function from the last block's output to the metric of every prompt, ``[prompt]``."""
    model, metric, batch = prepared.model, prepared.metric, prepared.batch
    positions = metric.positions(batch)
    prompts = torch.arange(len(batch), device=model.device)

    def score(last: Streams) -> Tensor:
        read = last if positions is None else gathered(last, positions)
        return metric_values(model, metric, batch, final=prepared.blocks.dense.final(read), prompts=prompts)

    return score


def budget_bytes(model: HookedModel, execution: Execution, *, most: int) -> int:
    """Bytes that a sub-batch may take: the execution's budget, else a share of free memory, ``most`` at most."""
    return execution.budget_bytes or min(most, int(_MEMORY_SHARE * available_bytes(model.device)))


def loss_sign(metric: Metric) -> float:
    """The sign that makes a metric a loss: +1 for the KL divergence, -1 for metrics that should be high."""
    return 1.0 if metric.name == "kl_divergence" else -1.0
