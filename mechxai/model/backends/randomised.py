"""A model with random weights, a baseline for probes: it has learnt nothing that they could read."""

import copy
from dataclasses import replace

import torch

from mechxai.core.errors import ModelSupportError
from mechxai.core.exclusive import exclusive
from mechxai.model.hooked_model import HookedModel
from mechxai.model.load import backend_of


def randomised(model: HookedModel, seed: int = 0) -> HookedModel:
    """A copy of a model with random weights.

    Every matrix is drawn from a normal distribution with the trained one's standard deviation, so that activations
    keep their size; biases and norms' weights stay.

    Args:
        model: the trained model, which does not change.
        seed: of the random weights.

    Raises:
        ModelSupportError: quantised weights, or weights on several devices.

    Cost: no forward pass; the weights once more in memory.

    Source: Zhang and Bowman 2018 (arXiv 1809.10040), untrained encoders as a baseline for probes.
    """
    if not model.backend.plain_weights():
        raise ModelSupportError(
            f"{model.name} cannot get random weights: its weights are quantised or on several devices",
            fix="Load it in float32 or bfloat16 on one device",
        )
    with exclusive(model):
        inner = copy.deepcopy(model.inner)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in inner.parameters():
            if parameter.ndim > 1:
                weights = torch.randn(parameter.shape, generator=generator) * float(parameter.float().std())
                parameter.copy_(weights)
    return replace(
        model,
        name=f"{model.name} with random weights",
        backend=backend_of(inner),
        loaded_hash=f"{model.weight_hash}-random-{seed}",
        card={},
    )
