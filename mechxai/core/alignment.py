"""Conversion of tokens, masks and answers to the form of a batch, and checks that they line up."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from mechxai.core.errors import AlignmentError, ShapeError
from mechxai.core.shapes import Answers, PromptInts, Tokens
from mechxai.core.torch_modes import ordinary

Integers = Any  # whole numbers: a tensor, a numpy array, a pandas Series, or a list, nested or not


def integer_tensor(name: str, values: Integers) -> Tensor:
    """Whole numbers as a tensor of 64-bit integers (or truth values), fit for a backward pass.

    Raises:
        ShapeError: rows of different length, or something other than whole numbers.
    """
    if isinstance(values, Tensor):
        if values.is_floating_point() or values.is_complex():
            raise ShapeError(f"{name} must hold whole numbers: its type is {values.dtype}")
        return ordinary(values if values.dtype == torch.bool else values.long())
    try:
        array = np.asarray(values)
        array = np.asarray(array.tolist()) if array.dtype == np.object_ else array  # integers as Python objects
    except ValueError as error:
        raise ShapeError(f"{name} has rows of different length", fix="Pad the rows") from error
    if array.dtype.kind not in "iub":
        raise ShapeError(f"{name} must hold whole numbers: its type is {array.dtype}")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise ShapeError(f"{name} holds {array.max()}, which is no token id: it has more than 63 bits")
    return torch.as_tensor(array.astype(np.bool_ if array.dtype.kind == "b" else np.int64))


def plain_list(name: str, values: object) -> list[Any]:
    """A list, tuple, numpy array or pandas Series as a list of texts, numbers or such lists.

    Raises:
        ShapeError: a single text, or a value that is no sequence.
    """
    scalar = isinstance(values, (np.ndarray, Tensor)) and values.ndim == 0
    if scalar or isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise ShapeError(f"{name} must be a list with one entry per prompt: it is {values!r}")
    return [_plain(value) for value in cast("Iterable[object]", values)]


def _plain(value: object) -> object:
    if isinstance(value, np.generic) or (isinstance(value, Tensor) and value.ndim == 0):
        return cast("Any", value).item()
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        return cast("object", value)
    return [_plain(item) for item in cast("Iterable[object]", value)]


def extent(real: Tensor) -> tuple[PromptInts, PromptInts]:
    """The start and the length of each row's real tokens; refuses a mask with holes, and prompts without tokens."""
    if real.ndim != 2 or not real.numel():
        raise ShapeError(
            f"Tokens have shape {list(real.shape)}: they must be [batch, pos], with a prompt and a token at least",
            fix="Add a batch dimension: [[5, 6, 7]]" if real.ndim == 1 else None,
        )
    lengths = real.sum(1)
    start = real.int().argmax(1)
    index = torch.arange(real.shape[1], device=real.device)[None]
    unbroken = (index >= start[:, None]) & (index < (start + lengths)[:, None])
    wrong = (lengths == 0) | (unbroken != real).any(1)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ShapeError(
            f"Row {row} of the mask is empty or has a hole: a mask must be one unbroken run of real tokens per row"
        )
    return start, lengths


def check_mask(mask: Tensor, tokens: Tensor) -> None:
    """Refuses a mask of another shape than the tokens."""
    if mask.shape != tokens.shape:
        raise ShapeError(f"The mask has shape {list(mask.shape)}, the tokens {list(tokens.shape)}: they must be equal")


def align_left(
    tokens: tuple[Tokens, Tokens], start: PromptInts, lengths: PromptInts
) -> tuple[tuple[Int[Tensor, "batch width"], Int[Tensor, "batch width"]], tuple[str, ...]]:
    """Both runs with each row moved to the left edge and padded with zeros, and an empty label per position."""
    width = int(lengths.max())
    index = torch.arange(width, device=start.device)[None] + start[:, None]
    index = index.clamp(max=tokens[0].shape[1] - 1)
    inside = torch.arange(width, device=start.device)[None] < lengths[:, None]
    moved = tuple(torch.where(inside, run.gather(1, index), 0) for run in tokens)
    return (moved[0], moved[1]), ("",) * width


def alternatives(answers: Tensor) -> Answers:
    """Answers as ``[batch, alt, answer_tok]``, from ``[batch]``, ``[batch, answer_tok]`` or that shape itself."""
    if answers.ndim == 1:
        return answers[:, None, None]
    if answers.ndim == 2:
        return answers[:, None, :]
    return answers


def check_tokens(clean: Tokens, corrupted: Tokens, lengths: PromptInts) -> None:
    """Refuses tokens and lengths that are not two padded batches of one shape."""
    if clean.ndim != 2 or clean.shape != corrupted.shape:
        raise AlignmentError(
            f"Clean tokens have shape {tuple(clean.shape)}, corrupted tokens {tuple(corrupted.shape)}: both must be "
            "of one shape [batch, pos]"
        )
    if clean.dtype not in (torch.long, torch.int) or corrupted.dtype not in (torch.long, torch.int):
        raise ShapeError(
            f"Tokens must be whole numbers: they are {clean.dtype} and {corrupted.dtype}", fix="Pass LongTensors"
        )
    if len(clean) == 0:
        raise ShapeError("The batch is empty: it needs at least one prompt")
    if lengths.shape != (len(clean),) or int(lengths.min()) < 1 or int(lengths.max()) > clean.shape[1]:
        raise ShapeError(
            f"lengths is {[int(length) for length in lengths]}: it must be [batch], from 1 to {clean.shape[1]}, the "
            "width of the tokens"
        )


def check_answers(name: str, answers: Answers, n_prompts: int) -> None:
    """Refuses answers that do not give every prompt at least one token."""
    if answers.ndim != 3 or len(answers) != n_prompts:
        raise ShapeError(
            f"{name} has shape {tuple(answers.shape)} for {n_prompts} prompts: it must have one row per prompt",
            allowed="[batch], [batch, answer_tok] or [batch, alt, answer_tok]",
        )
    missing = answers[:, 0, 0] < 0
    if bool(missing.any()):
        raise ShapeError(f"{name}: prompt {int(missing.nonzero()[0])} has no answer (its first token is negative)")


def check_in_vocabulary(name: str, ids: Tensor, d_vocab: int) -> None:
    """Refuses tokens or answers, ``[batch, ...]``, that a vocabulary does not have."""
    outside = (ids >= d_vocab).flatten(1).any(1)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise ShapeError(
            f"{name}: token {int(ids[row].max())} of prompt {row} is outside the vocabulary of {d_vocab} tokens "
            f"(0-{d_vocab - 1})"
        )


def check_different(answers: Answers, wrong: Int[Tensor, "batch alt_wrong wrong_tok"]) -> None:
    """Refuses a prompt whose first answer is also its first wrong answer."""
    if answers.shape[2] != wrong.shape[2]:
        return
    same = (answers[:, 0] == wrong[:, 0]).all(-1)
    if bool(same.any()):
        row = int(same.nonzero()[0])
        raise AlignmentError(
            f"Prompt {row} has the same answer and wrong answer: token {[int(token) for token in answers[row, 0]]}",
            fix="Give two answers that differ in their tokens, or drop the prompt",
        )


def check_positions(name: str, at: PromptInts, lengths: PromptInts) -> None:
    """Refuses positions that are not one real position per prompt."""
    if at.shape != lengths.shape:
        raise ShapeError(f"{name} has shape {tuple(at.shape)}: it must name one real position per prompt")
    outside = (at < 0) | (at >= lengths)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise ShapeError(
            f"{name} must name one real position per prompt: it is {int(at[row])} for prompt {row}, which has "
            f"{int(lengths[row])} tokens"
        )
