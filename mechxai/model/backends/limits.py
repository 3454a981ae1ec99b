"""Limits of a model and a machine: vocabulary, context length, memory."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mechxai.core.architecture import Architecture
from mechxai.core.errors import NoSpaceError, ShapeError, SiteError
from mechxai.core.site import Site
from mechxai.model.backends.memory import available_bytes


def check_form(tokens: Tensor) -> None:
    """Refuses tokens that are not whole numbers ``[batch, pos]``."""
    if tokens.ndim != 2 or tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise ShapeError(
            f"Tokens must be whole numbers [batch, pos], not {str(tokens.dtype).removeprefix('torch.')} "
            f"{list(tokens.shape)}",
            fix="Add a batch dimension with tokens[None]" if tokens.ndim == 1 else None,
        )


def check_tokens(tokens: Tensor, architecture: Architecture, name: str) -> None:
    """Refuses tokens that the model cannot read.

    Raises:
        ShapeError: not whole numbers ``[batch, pos]``, more than the context holds, or outside the vocabulary.
    """
    check_form(tokens)
    if not tokens.shape[1]:
        raise ShapeError("The prompts have no tokens", fix="Pass at least one token for each prompt")
    if tokens.shape[1] > architecture.n_ctx:
        raise ShapeError(
            f"The prompts have {tokens.shape[1]} tokens: {name} reads up to n_ctx={architecture.n_ctx}",
            fix="Shorten the prompts",
        )
    lowest, highest = (int(tokens.min()), int(tokens.max())) if tokens.numel() else (0, 0)
    if highest >= architecture.d_vocab or lowest < 0:
        raise ShapeError(
            f"Token id {lowest if lowest < 0 else highest} is outside the vocabulary of {name}",
            allowed=f"0 to {architecture.d_vocab - 1}",
            fix="Use this model's tokenizer",
        )


def inside(position: int, width: int) -> int:
    """A position counted from the start; negative positions count from the end.

    Raises:
        SiteError: outside ``width`` tokens.
    """
    if not -width <= position < width:
        raise SiteError(
            f"Position {position} is out of range: the prompts have {width} tokens", allowed=f"{-width} to {width - 1}"
        )
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


def check_space(need: int, contents: str, device: torch.device) -> None:
    """Refuses to cache more bytes than are free.

    Raises:
        NoSpaceError: says how much is needed and how much there is.
    """
    free = available_bytes(device)
    if need > free:
        raise NoSpaceError(
            f"Caching {contents} takes {need / 2**30:.1f} GiB: {free / 2**30:.1f} GiB are free on {device}",
            fix="Choose fewer sites, layers or positions or a smaller dtype, or stream to disk with mx.ActivationStore",
        )
