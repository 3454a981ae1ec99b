"""How much each addend of a vector matters to it: the importances of the edges into one node of the residual stream."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

_ELEMENTS = {"cpu": 2**18}  # of differences held together: few enough for a processor's cache
_ELEMENTS_ELSEWHERE = 2**25

Vectors = Float[Tensor, "dest d_model"]


def proximity(addends: Vectors, whole: Vectors) -> Float[Tensor, " dest"]:
    """``max(0, ||y|| - ||y - z||)`` in the 1-norm of one addend of each vector, taken dimension by dimension.

    Source: Ferrando et al. 2022 (arXiv 2210.04205), as Ferrando & Voita 2024 use it.
    """
    return _nearness(addends - whole, whole)


def heads_proximity(
    pattern: Float[Tensor, "head dest src"],
    values: Float[Tensor, "src head d_head"],
    out: Float[Tensor, "head d_head d_model"],
    *,
    whole: Vectors,
    at: Int[Tensor, " dest"],
) -> Float[Tensor, "head dest src"]:
    """The proximity of what every head brings from every source to every vector.

    A head's vectors are made for a few destinations at a time; sources after a destination are not looked at.

    Args:
        pattern: of the destinations.
        values: of all sources, by head.
        out: ``W_O`` by head.
        whole: the vectors.
        at: positions of the destinations, ascending.
    """
    found = torch.zeros_like(pattern)
    most = _ELEMENTS.get(pattern.device.type, _ELEMENTS_ELSEWHERE)
    ends = at.tolist()
    for head, into in enumerate(found):
        written = values[:, head] @ out[head]  # [src, d_model]
        for some, n in _chunks(ends, per_source=written.shape[1], most=most):
            own = whole[some, None]
            gap = torch.addcmul(-own, pattern[head, some, :n, None], written[:n])
            into[some, :n] = _nearness(gap, own)
    return found


def shares(near: Sequence[Float[Tensor, "dest ..."]]) -> list[Float[Tensor, "dest ..."]]:
    """Proximities of the groups of addends of each vector as importances, which add up to 1 over all groups.

    Where no addend is near its vector (addends that cancel) all are 0.

    Args:
        near: one tensor for each group, destinations first.
    """
    total = torch.stack([one.flatten(1).sum(1) if one.ndim > 1 else one for one in near]).sum(0)
    scale = torch.where(total > 0, 1 / total, 0.0)
    return [one * scale.reshape(-1, *(1,) * (one.ndim - 1)) for one in near]


def _chunks(ends: Sequence[int], *, per_source: int, most: int) -> list[tuple[slice, int]]:
    """Runs of destinations and how many sources the last of them sees, so that few elements are held together."""
    found, first = list[tuple[slice, int]](), 0
    while first < len(ends):
        stop = first + 1
        while stop < len(ends) and (stop + 1 - first) * (ends[stop] + 1) * per_source <= most:
            stop += 1
        found.append((slice(first, stop), ends[stop - 1] + 1))
        first = stop
    return found


def _nearness(gap: Tensor, whole: Tensor) -> Tensor:
    """From ``y - z`` of either sign, which is overwritten: small addends beside large vectors lose no digits."""
    return gap.abs_().sub_(whole.abs()).sum(-1).neg_().clamp_(min=0)
