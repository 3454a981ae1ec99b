"""Torch's ambient modes, switched off where they would change numbers or replace a user's parameters."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

_DEVICE_TYPES = ("cpu", "cuda", "mps", "xpu")


@contextmanager
def plain_torch() -> Generator[None]:
    """Turns off autocast and inference mode inside a ``with`` block; whether gradients are recorded does not change.

    Under autocast, products are rounded to half precision. Tensors made in inference mode cannot be used in a backward
    pass.
    """
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(mode=False))  # this alone would turn gradients on
            stack.enter_context(torch.set_grad_enabled(mode=False))
        for device_type in _DEVICE_TYPES:
            if torch.is_autocast_enabled(device_type):
                stack.enter_context(torch.autocast(device_type, enabled=False))
        yield


def ordinary(tensor: Tensor) -> Tensor:
    """The tensor; a copy of one made in inference mode, which no backward pass could use."""
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(mode=False):
        return tensor.clone()
