"""Hard concrete gates: numbers from 0 to 1 that are often exactly 0 or 1 and still have a gradient.

Source: Louizos et al. 2018 (arXiv 1712.01312), section 2.2.
"""

import torch
from jaxtyping import Float
from torch import Tensor

TEMPERATURE = 2 / 3
LOW, HIGH = -0.1, 1.1  # the range that a gate is stretched to before it is clamped to 0 and 1

Gates = Float[Tensor, "*gates"]


def sampled_gates(log_odds: Gates, generator: torch.Generator) -> Gates:
    """Random gates, differentiable in their log-odds."""
    uniform = torch.rand(log_odds.shape, generator=generator).clamp(1e-6, 1 - 1e-6).to(log_odds)
    noise = uniform.log() - (1 - uniform).log()
    return _stretched(torch.sigmoid((log_odds + noise) / TEMPERATURE))


def deterministic_gates(log_odds: Gates) -> Gates:
    """The gates without noise, as they are used after training."""
    return _stretched(torch.sigmoid(log_odds))


def open_probability(log_odds: Gates) -> Gates:
    """The probability that a sampled gate is not 0."""
    shift = TEMPERATURE * torch.log(torch.tensor(-LOW / HIGH, device=log_odds.device))
    return torch.sigmoid(log_odds - shift)


def _stretched(gates: Gates) -> Gates:
    return (gates * (HIGH - LOW) + LOW).clamp(0, 1)
