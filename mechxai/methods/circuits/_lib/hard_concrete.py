"""Hard concrete gates: numbers between 0 and 1 that are often exactly either, and have a gradient all the same.

Source: Louizos et al. 2018 (arXiv 1712.01312), section 2.2.
"""

import torch
from jaxtyping import Float
from torch import Tensor

TEMPERATURE = 2 / 3
LOW, HIGH = -0.1, 1.1  # what a gate is stretched to before it is cut to 0 and 1

Gates = Float[Tensor, "*gates"]


def drawn(log_odds: Gates, generator: torch.Generator) -> Gates:
    """Gates drawn at random, differentiable in their log-odds."""
    uniform = torch.rand(log_odds.shape, generator=generator).clamp(1e-6, 1 - 1e-6).to(log_odds)
    noise = uniform.log() - (1 - uniform).log()
    return _stretched(torch.sigmoid((log_odds + noise) / TEMPERATURE))


def settled(log_odds: Gates) -> Gates:
    """Gates without chance: what they are once training is over."""
    return _stretched(torch.sigmoid(log_odds))


def open_share(log_odds: Gates) -> Gates:
    """The probability that a drawn gate is not 0."""
    shift = TEMPERATURE * torch.log(torch.tensor(-LOW / HIGH, device=log_odds.device))
    return torch.sigmoid(log_odds - shift)


def _stretched(gates: Gates) -> Gates:
    return (gates * (HIGH - LOW) + LOW).clamp(0, 1)
