"""Edits along a probe's direction, and along random directions as placebos."""

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
    """Projects a subspace out of activations about the mean, or subtracts a vector of the same length elsewhere.

    ``x - (x - center) read^T write``: with ``write`` equal to ``read``, the subspace is projected out about the mean.
    With another basis, the edit is a placebo that changes every activation by exactly the same length.

    Attributes:
        read: orthonormal basis of the subspace that is read, ``[rank, d]``.
        write: orthonormal basis of the subspace that is changed, ``[rank, d]``.
        center: mean activation, ``[d]``.
    """

    positionwise: ClassVar[bool] = True
    read: Float[Tensor, "rank d"]
    write: Float[Tensor, "rank d"]
    center: Float[Tensor, " d"]

    def __call__(self, activation: Activation, site: Site) -> Activation:
        """The edited activation."""
        flat = _flat(activation, self.read, site)
        read, write, center = (tensor.to(flat) for tensor in (self.read, self.write, self.center))
        return (flat - (flat - center) @ read.T @ write).view_as(activation)


@dataclass(frozen=True)
class ShiftEach(PerPromptEdit):
    """Adds one vector per prompt to the activations.

    Attributes:
        vectors: the vector of each prompt, ``[batch, d]``.
    """

    positionwise: ClassVar[bool] = True
    vectors: Float[Tensor, "batch d"]

    def __call__(self, activation: Activation, site: Site) -> Activation:
        """The shifted activation."""
        flat = _flat(activation, self.vectors, site)
        shift = self.vectors.to(flat)
        return (flat + shift.view(len(shift), *(1,) * (flat.ndim - 2), -1)).view_as(activation)

    def select(self, chosen: Rows) -> "ShiftEach":
        """The edit for some of the prompts."""
        return replace(self, vectors=self.vectors[chosen])


def orthonormal(rows: Float[Tensor, "row d"]) -> Float[Tensor, "rank d"]:
    """An orthonormal basis of the span of the rows."""
    _, singular, basis = torch.linalg.svd(rows.double(), full_matrices=False)
    return basis[singular > 1e-6 * singular.max()].float()


def _flat(activation: Tensor, like: Tensor, site: Site) -> Tensor:
    """The activation with its feature axes (head and d_head) flattened into one."""
    axes = len(site.row.axes) - 1
    flat = activation.flatten(-axes) if axes > 1 else activation
    if flat.shape[-1] != like.shape[-1]:
        raise ShapeError(
            f"The probe's direction has {like.shape[-1]} dimensions, but {site} has {flat.shape[-1]}",
            fix="Use a probe of the same site",
        )
    return flat
