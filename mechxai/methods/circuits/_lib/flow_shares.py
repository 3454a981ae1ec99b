"""Importances of the edges into a node of the residual stream: how near each addend is to the vector it is part of."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

_ELEMENTS = {"cpu": 2**18}  # elements of differences at once: few enough for a processor's cache
_ELEMENTS_ELSEWHERE = 2**25

Vectors = Float[Tensor, "dest d_model"]


def proximity(addends: Vectors, vectors: Vectors) -> Float[Tensor, " dest"]:
    """``max(0, ||y|| - ||y - z||)`` in the 1-norm, for one addend ``z`` of each vector ``y``.

    Source: Ferrando et al. 2022 (arXiv 2210.04205), as Ferrando & Voita 2024 use it.
    """
    return _nearness(addends - vectors, vectors)


def heads_proximity(
    pattern: Float[Tensor, "head dest src"],
    values: Float[Tensor, "src head d_head"],
    out: Float[Tensor, "head d_head d_model"],
    *,
    vectors: Vectors,
    at: Int[Tensor, " dest"],
) -> Float[Tensor, "head dest src"]:
    """The proximity of each head's output from each source position to each destination's vector.

    A head's outputs are computed for a few destinations at a time; sources after a destination are skipped.

    Args:
        pattern: of the destinations.
        values: of all sources, by head.
        out: ``W_O`` by head.
        vectors: the vectors at the destinations.
        at: positions of the destinations, ascending.
    """
    proximities = torch.zeros_like(pattern)
    most = _ELEMENTS.get(pattern.device.type, _ELEMENTS_ELSEWHERE)
    ends = at.tolist()
    for head, of_head in enumerate(proximities):
        written = values[:, head] @ out[head]  # [src, d_model]
        for chunk, n in _chunks(ends, per_source=written.shape[1], most=most):
            target = vectors[chunk, None]
            difference = torch.addcmul(-target, pattern[head, chunk, :n, None], written[:n])
            of_head[chunk, :n] = _nearness(difference, target)
    return proximities


def shares(proximities: Sequence[Float[Tensor, "dest ..."]]) -> list[Float[Tensor, "dest ..."]]:
    """Importances: proximities of all addends of each vector, divided by their sum.

    Where no addend is near its vector (addends that cancel) all importances are 0.

    Args:
        proximities: one tensor for each group of addends, destinations first.
    """
    total = torch.stack([group.flatten(1).sum(1) if group.ndim > 1 else group for group in proximities]).sum(0)
    scale = torch.where(total > 0, 1 / total, 0.0)
    return [group * scale.reshape(-1, *(1,) * (group.ndim - 1)) for group in proximities]


def _chunks(ends: Sequence[int], *, per_source: int, most: int) -> list[tuple[slice, int]]:
    """Chunks of destinations, each with the number of sources that its last one sees, of few elements each."""
    chunks, first = list[tuple[slice, int]](), 0
    while first < len(ends):
        stop = first + 1
        while stop < len(ends) and (stop + 1 - first) * (ends[stop] + 1) * per_source <= most:
            stop += 1
        chunks.append((slice(first, stop), ends[stop - 1] + 1))
        first = stop
    return chunks


def _nearness(difference: Tensor, vectors: Tensor) -> Tensor:
    """``max(0, ||y|| - ||y - z||)`` from ``y - z`` of either sign, which is overwritten.

    Norms are subtracted dimension by dimension, so that small addends beside large vectors lose no digits.
    """
    return difference.abs_().sub_(vectors.abs()).sum(-1).neg_().clamp_(min=0)
