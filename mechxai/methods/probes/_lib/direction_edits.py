"""Edits along a probe's direction, and the same along a random one."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.edit import Edit
from mechxai.core.edit_base import PerPromptEdit
from mechxai.core.errors import ShapeError
from mechxai.core.shapes import Activation, Rows
from mechxai.core.site import Site


@dataclass(frozen=True)
class RemoveAlong(Edit):
    """What an activation has in a subspace, beyond the mean there, subtracted; or a vector as long in another subspace.

    ``x - (x - center) read^T write``: with ``write`` equal to ``read`` the subspace is projected out about the mean;
    with another basis it is a placebo that changes every activation by exactly as much.

    Attributes:
        read: orthonormal rows, ``[rank, d]``.
        write: orthonormal rows, ``[rank, d]``.
        center: ``[d]``.
    """

    positionwise: ClassVar[bool] = True
    read: Float[Tensor, "rank d"]
    write: Float[Tensor, "rank d"]
    center: Float[Tensor, " d"]

    def __call__(self, activation: Activation, site: Site) -> Activation:
        """The activation without it."""
        flat = _flat(activation, self.read, site)
        read, write, center = (one.to(flat) for one in (self.read, self.write, self.center))
        return (flat - (flat - center) @ read.T @ write).view_as(activation)


@dataclass(frozen=True)
class ShiftEach(PerPromptEdit):
    """A vector of its own added to every prompt's activation.

    Attributes:
        vectors: ``[batch, d]``.
    """

    positionwise: ClassVar[bool] = True
    vectors: Float[Tensor, "batch d"]

    def __call__(self, activation: Activation, site: Site) -> Activation:
        """The activation, shifted."""
        flat = _flat(activation, self.vectors, site)
        shift = self.vectors.to(flat)
        return (flat + shift.view(len(shift), *(1,) * (flat.ndim - 2), -1)).view_as(activation)

    def select(self, chosen: Rows) -> "ShiftEach":
        """The edit for some prompts."""
        return replace(self, vectors=self.vectors[chosen])


def orthonormal(rows: Float[Tensor, "row d"]) -> Float[Tensor, "rank d"]:
    """An orthonormal basis of the span of some rows."""
    _, singular, basis = torch.linalg.svd(rows.double(), full_matrices=False)
    return basis[singular > 1e-6 * singular.max()].float()


def _flat(activation: Tensor, like: Tensor, site: Site) -> Tensor:
    """The activation with its feature axes (heads, their dimensions) as one."""
    axes = len(site.row.axes) - 1
    flat = activation.flatten(-axes) if axes > 1 else activation
    if flat.shape[-1] != like.shape[-1]:
        raise ShapeError(
            f"Editing {site} along a probe's direction", got=tuple(like.shape), allowed=f"{flat.shape[-1]}"
        )
    return flat
