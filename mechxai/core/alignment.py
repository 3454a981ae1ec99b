"""Tokens, masks and answers brought into the one form a batch has, or refused with the reason."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mechxai.core.errors import AlignmentError, ShapeError
from mechxai.core.shapes import Answers, PromptInts, Tokens


def extent(real: Bool[Tensor, "batch pos"]) -> tuple[PromptInts, PromptInts]:
    """Where each row's real tokens start, and how many they are; refuses a mask with holes."""
    lengths = real.sum(1)
    start = real.int().argmax(1)
    index = torch.arange(real.shape[1], device=real.device)[None]
    solid = (index >= start[:, None]) & (index < (start + lengths)[:, None])
    if bool((lengths == 0).any()) or not bool((solid == real).all()):
        raise ShapeError("The mask must be one unbroken run of real tokens per row", got="an empty row or a hole")
    return start, lengths


def align_left(
    tokens: tuple[Tokens, Tokens], start: PromptInts, lengths: PromptInts
) -> tuple[tuple[Int[Tensor, "batch width"], Int[Tensor, "batch width"]], tuple[str, ...]]:
    """Both runs with each row moved to the left edge, zeros behind it, and empty labels for the positions."""
    width = int(lengths.max())
    index = torch.arange(width, device=start.device)[None] + start[:, None]
    index = index.clamp(max=tokens[0].shape[1] - 1)
    inside = torch.arange(width, device=start.device)[None] < lengths[:, None]
    moved = tuple(torch.where(inside, row.gather(1, index), 0) for row in tokens)
    return (moved[0], moved[1]), ("",) * width


def alternatives(answers: Tensor) -> Answers:
    """Answers in their full shape, ``[batch, alt, answer_tok]``, from any of the three allowed."""
    if answers.ndim == 1:
        return answers[:, None, None]
    if answers.ndim == 2:
        return answers[:, None, :]
    return answers


def check_tokens(clean: Tokens, corrupted: Tokens, lengths: PromptInts) -> None:
    """Refuses tokens and lengths that are no pair of padded batches."""
    if clean.ndim != 2 or clean.shape != corrupted.shape:
        raise AlignmentError(
            "Clean and corrupted tokens must both be [batch, pos]",
            got=f"clean {tuple(clean.shape)}, corrupted {tuple(corrupted.shape)}",
        )
    if clean.dtype not in (torch.long, torch.int) or corrupted.dtype not in (torch.long, torch.int):
        raise ShapeError(
            "Tokens must be whole numbers", got=f"{clean.dtype} and {corrupted.dtype}", fix="pass LongTensors"
        )
    if len(clean) == 0:
        raise ShapeError("A batch needs at least one prompt", got="0 prompts")
    if lengths.shape != (len(clean),) or int(lengths.min()) < 1 or int(lengths.max()) > clean.shape[1]:
        raise ShapeError(
            "lengths must be [batch], from 1 to the width of the tokens", got=[int(length) for length in lengths]
        )


def check_answers(name: str, answers: Answers, n_prompts: int) -> None:
    """Refuses answers that do not give every prompt at least one token."""
    if answers.ndim != 3 or len(answers) != n_prompts:
        raise ShapeError(
            f"{name} must have one row per prompt",
            got=f"{tuple(answers.shape)} for {n_prompts} prompts",
            allowed="[batch], [batch, answer_tok] or [batch, alt, answer_tok]",
        )
    if bool((answers[:, 0, 0] < 0).any()):
        raise ShapeError(
            f"{name}: prompt {int((answers[:, 0, 0] < 0).nonzero()[0])} has none", got="-1 in the first place"
        )


def check_different(answers: Answers, wrong: Int[Tensor, "batch alt_wrong wrong_tok"]) -> None:
    """Refuses a prompt whose first answer is also its first wrong answer."""
    if answers.shape[2] != wrong.shape[2]:
        return
    same = (answers[:, 0] == wrong[:, 0]).all(-1)
    if bool(same.any()):
        row = int(same.nonzero()[0])
        raise AlignmentError(
            f"Prompt {row} has the same answer and wrong answer",
            got=f"token {[int(token) for token in answers[row, 0]]} for both",
            fix="give two answers that differ in their tokens, or drop the prompt",
        )


def check_positions(name: str, at: PromptInts, lengths: PromptInts) -> None:
    """Refuses positions that are not one real position per prompt."""
    if at.shape != lengths.shape or bool(((at < 0) | (at >= lengths)).any()):
        raise ShapeError(
            f"{name} must name one real position per prompt",
            got=f"{tuple(at.shape)}, from {int(at.min())} to {int(at.max())}",
            allowed=f"[{len(lengths)}], from 0 to below the row's length",
        )
