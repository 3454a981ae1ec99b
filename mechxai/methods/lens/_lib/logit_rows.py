"""Arithmetic on rows of logits in preallocated memory (see `Buffers`)."""

import torch
from jaxtyping import Float
from torch import Tensor

Rows = Float[Tensor, "row d_vocab"]
PerRow = Float[Tensor, " row"]


def exponentials(logits: Rows, into: Rows, highest: Float[Tensor, "row one"]) -> tuple[PerRow, PerRow]:
    """Writes ``exp(logits - highest)`` into ``into``, which may be ``logits`` itself.

    Returns:
        The log of the sum of ``exp(logits)``, and the sum of the written values.
    """
    torch.sub(logits, highest, out=into).exp_()
    total = into.sum(-1)
    return highest[:, 0] + total.log(), total


def dots(left: Rows, right: Rows) -> PerRow:
    """Inner products of corresponding rows; on a CPU with ``torch.dot``, which stores no products."""
    if left.device.type == "cpu":
        return torch.stack([torch.dot(x, y) for x, y in zip(left, right, strict=True)])
    return torch.linalg.vecdot(left, right)
