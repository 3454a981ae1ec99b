"""The metric of prompts whose last residual streams are known, and how much memory a part of them may take."""

from collections.abc import Callable

import torch
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.metric import Metric
from mechxai.engine.chunk import metric_values
from mechxai.engine.execution import Execution
from mechxai.model.backends.hooks import gathered
from mechxai.model.backends.memory import available_bytes
from mechxai.model.graph.writes import Blocks, Streams
from mechxai.model.hooked_model import HookedModel

_MEMORY_SHARE = 0.25


def score_of(
    model: HookedModel, blocks: Blocks, batch: ContrastBatch, *, metric: Metric
) -> Callable[[Streams], Tensor]:
    """What gives the metric of every prompt, ``[prompt]``, from the last block's output; differentiable."""
    at = metric.positions(batch)
    everyone = torch.arange(len(batch), device=model.device)

    def score(last: Streams) -> Tensor:
        read = last if at is None else gathered(last, at)
        return metric_values(model, metric, batch, final=blocks.dense.final(read), prompts=everyone)

    return score


def budget_bytes(model: HookedModel, execution: Execution, *, most: int) -> int:
    """Memory for what a part of the prompts holds: what was asked, else a share of what is free, ``most`` at most."""
    return execution.budget_bytes or min(most, int(_MEMORY_SHARE * available_bytes(model.device)))


def as_loss(metric: Metric) -> float:
    """The sign that makes a metric a loss: a divergence is one, all others should be high."""
    return 1.0 if metric.name == "kl_divergence" else -1.0
