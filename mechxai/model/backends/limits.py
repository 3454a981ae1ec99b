"""What a model and a machine can take: tokens of its vocabulary and context, activations that fit into memory."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mechxai.core.architecture import Architecture
from mechxai.core.errors import NoSpaceError, ShapeError, SiteError
from mechxai.core.site import Site
from mechxai.model.backends.memory import available_bytes


def check_tokens(tokens: Tensor, architecture: Architecture, name: str) -> None:
    """Refuses tokens the model cannot read.

    Raises:
        ShapeError: not whole numbers ``[batch, pos]``, more than the context holds, or outside the vocabulary.
    """
    if tokens.ndim != 2 or tokens.is_floating_point():
        raise ShapeError("Tokens must be whole numbers, [batch, pos]", got=f"{tokens.dtype} {tuple(tokens.shape)}")
    if tokens.shape[1] > architecture.n_ctx:
        raise ShapeError(
            f"{tokens.shape[1]} tokens were given",
            allowed=f"up to n_ctx={architecture.n_ctx} for {name}",
            fix="shorten the prompts",
        )
    top = int(tokens.max()) if tokens.numel() else 0
    if top >= architecture.d_vocab or int(tokens.min()) < 0:
        raise ShapeError(
            "A token id lies outside the vocabulary",
            got=top,
            allowed=f"0 to {architecture.d_vocab - 1}",
            fix="use this model's tokenizer",
        )


def inside(position: int, width: int) -> int:
    """A position counted from the start, given from the start or (negative) from the end.

    Raises:
        SiteError: outside ``width`` tokens.
    """
    if not -width <= position < width:
        raise SiteError(f"Position {position} was asked", got=f"{width} tokens", allowed=f"{-width} to {width - 1}")
    return position % width


def cache_bytes(
    architecture: Architecture, shape: tuple[int, int], sites: Sequence[Site], *, dtype: torch.dtype
) -> int:
    """Bytes of the sites' activations for ``(batch, pos)`` tokens."""
    batch, pos = shape
    sizes = {"pos": pos, "dest_pos": pos, "src_pos": pos, "one": 1}
    total = 0
    for site in sites:
        count = batch
        for axis in site.row.axes:
            count *= sizes[axis] if axis in sizes else architecture.size(axis)
        total += count
    return total * dtype.itemsize


def check_space(need: int, what: str, device: torch.device) -> None:
    """Refuses to cache more than is free.

    Raises:
        NoSpaceError: says how much is needed and how much there is.
    """
    free = available_bytes(device)
    if need > free:
        raise NoSpaceError(
            f"Caching {what}",
            got=f"{need / 2**30:.1f} GiB needed, {free / 2**30:.1f} GiB free on {device}",
            fix="fewer sites, layers or positions, a smaller dtype, or mx.ActivationStore, which streams to disk",
        )
