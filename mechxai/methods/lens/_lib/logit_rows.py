"""Arithmetic on rows of logits, in memory that is there already (see `Buffers`)."""

import torch
from jaxtyping import Float
from torch import Tensor

Rows = Float[Tensor, "row d_vocab"]
PerRow = Float[Tensor, " row"]


def exponentials(logits: Rows, into: Rows, highest: Float[Tensor, "row one"]) -> tuple[PerRow, PerRow]:
    """Writes ``exp(logits - highest)`` into memory that may be the logits' own.

    Returns:
        The log of the sum of ``exp(logits)``, and the sum of what was written.
    """
    torch.sub(logits, highest, out=into).exp_()
    total = into.sum(-1)
    return highest[:, 0] + total.log(), total


def dots(one: Rows, other: Rows) -> PerRow:
    """Row by row; on a CPU by its own kernel, which does not write the products down first."""
    if one.device.type == "cpu":
        return torch.stack([torch.dot(x, y) for x, y in zip(one, other, strict=True)])
    return torch.linalg.vecdot(one, other)
