"""Labels of probe datasets: conversion to class numbers, and checks of shapes, classes and splits."""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mechxai.core.display import counted
from mechxai.core.errors import ConfigError, ShapeError, unknown

SPLITS = ("train", "validation", "test")
Label = str | int | float | None


def check_labels(tokens: Tensor, labels: Tensor, names: Sequence[str]) -> None:
    """Refuses labels that do not fit the prompts or the class names."""
    if tuple(labels.shape) not in ((len(tokens),), tuple(tokens.shape)):
        raise ShapeError(
            f"Labels of shape {tuple(labels.shape)} do not match the prompts, of shape {tuple(tokens.shape)}",
            allowed=f"({len(tokens)},) for one per prompt, {tuple(tokens.shape)} for one per token",
        )
    if not names and not labels.is_floating_point():
        raise ShapeError(f"Labels of type {labels.dtype} need class names", fix="Pass names, or floats to regress")
    if names and labels.is_floating_point():
        raise ShapeError(f"Labels with class names must be whole numbers: they are {labels.dtype}")
    if names and (int(labels.max()) >= len(names) or int(labels.min()) < -1):
        raise ShapeError(
            f"Class labels run from {int(labels.min())} to {int(labels.max())}: there are {len(names)} class names",
            allowed=f"0 to {len(names) - 1}, and -1 for unlabelled",
        )


def check_classes(labels: Tensor, names: Sequence[str], where: str = "") -> None:
    """Refuses labels with fewer than two classes, or numbers that do not vary."""
    if not names and (len(labels) < 2 or bool((labels == labels[0]).all())):
        raise ShapeError(f"The numbers to regress{where} do not vary", fix="Give labels that vary")
    numbers = cast("list[int]", labels.tolist())  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
    present = [names[number] for number in sorted(set(numbers))] if names else []
    if names and len(present) < 2:
        labelled = f"{counted(len(labels), 'label')}, all {present[0]!r}" if present else "no labels"
        raise ShapeError(
            f"A probe needs at least two classes{where}: the dataset has {labelled}",
            fix="Give labels of at least two classes",
        )


def words_of(text: object, label: object, number: int) -> tuple[str, list[tuple[int, int]], list[Label]]:
    """The text of a list of words, each word's character span, and the words' labels."""
    words, labels = list(cast("Sequence[str]", text)), list(cast("Sequence[Label]", label))
    if isinstance(text, str) or isinstance(label, str) or len(words) != len(labels) or not words:
        raise ShapeError(
            f"Prompt {number} has {counted(len(words), 'word')} and {counted(len(labels), 'label')}: the labels do not "
            "match its words"
        )
    spans, at = list[tuple[int, int]](), 0
    for word in words:
        spans.append((at, at + len(word)))
        at += len(word) + 1
    return " ".join(words), spans, labels


def _plain(label: object) -> Label:
    """A label as a plain Python value."""
    plain = cast("Any", label).item() if hasattr(label, "item") else label
    if plain is None or isinstance(plain, (str, int, float)):
        return plain
    raise ShapeError(f"{plain!r} cannot be a label", allowed="a text, a number, or None")


def numbered(labels: Sequence[object], names: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """Labels as numbers, and the class names; no names where the labels are numbers to regress."""
    plain = [_plain(label) for label in labels]
    present = [label for label in plain if label is not None]
    if any(isinstance(label, float) for label in present):
        texts = [label for label in present if isinstance(label, str)]
        if texts:
            raise ShapeError(f"Labels must be all numbers or all texts: {texts[0]!r} is among numbers")
        return torch.tensor([torch.nan if label is None else float(label) for label in plain]), ()
    kinds = Counter[Hashable](type(label).__name__ for label in present)
    if len(kinds) > 1:
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        raise ShapeError(f"Labels must be of one type: these are {counts}")
    classes = tuple(str(name) for name in names) or tuple(str(name) for name in sorted(cast("set[str]", set(present))))
    missing = [label for label in present if str(label) not in classes]
    if missing:
        raise ShapeError(unknown("label", missing[0], classes))
    return torch.tensor([-1 if label is None else classes.index(str(label)) for label in plain]), classes


def labels_at(positions: Sequence[Sequence[int]], labels: Tensor, lengths: Sequence[int]) -> Tensor:
    """Labels of single tokens as labels of all tokens, ``[batch, pos]``, the others unlabelled.

    Args:
        positions: the labelled tokens of each prompt.
        labels: their labels, prompt after prompt.
        lengths: tokens of each prompt.
    """
    unlabelled = torch.nan if labels.is_floating_point() else -1
    rows: list[Tensor] = []
    start = 0
    for row_positions, length in zip(positions, lengths, strict=True):
        row = torch.full((length,), unlabelled, dtype=labels.dtype)
        row[list(row_positions)] = labels[start : start + len(row_positions)]
        rows.append(row)
        start += len(row_positions)
    return pad_sequence(rows, batch_first=True, padding_value=unlabelled)


def check_splits(groups: Sequence[str], splits: Sequence[str]) -> None:
    """Refuses unknown split names, an empty split, and a group in two splits."""
    if not splits:
        return
    wrong = sorted(set(splits) - set(SPLITS))
    if wrong:
        raise ConfigError(unknown("split", wrong[0], SPLITS))
    missing = [name for name in SPLITS if name not in splits]
    if missing:
        raise ConfigError(f"No prompt is in the {missing[0]!r} split: each of {', '.join(SPLITS)} needs at least one")
    split_of: dict[str, str] = {}
    for group, split in zip(groups, splits, strict=True):
        if split_of.setdefault(group, split) != split:
            raise ShapeError(
                f"Group {group!r} is in two splits, {split_of[group]} and {split}",
                fix="Keep each group in one split, or omit splits to have them drawn by group",
            )
