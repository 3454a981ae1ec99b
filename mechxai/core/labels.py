"""Labels as they are given, checked and numbered; and which of them a probe may learn from."""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from mechxai.core.errors import ConfigError, ShapeError, nearest

SPLITS = ("train", "validation", "test")
Label = str | int | float | None


def check_labels(tokens: Tensor, labels: Tensor, names: Sequence[str]) -> None:
    """Refuses labels that do not fit their prompts or their classes' names."""
    if tuple(labels.shape) not in ((len(tokens),), tuple(tokens.shape)):
        raise ShapeError(
            "Labels do not match the prompts",
            got=f"labels {tuple(labels.shape)}, tokens {tuple(tokens.shape)}",
            allowed=f"({len(tokens)},) for one per prompt, {tuple(tokens.shape)} for one per token",
        )
    if not names and not labels.is_floating_point():
        raise ShapeError("Labels without names of classes", got=str(labels.dtype), fix="give names, or floats")
    if names and labels.is_floating_point():
        raise ShapeError("Labels of classes", got=str(labels.dtype), allowed="whole numbers")
    if names and (int(labels.max()) >= len(names) or int(labels.min()) < -1):
        raise ShapeError(
            "Labels of classes",
            got=f"{int(labels.min())} to {int(labels.max())}",
            allowed=f"0 to {len(names) - 1}, and -1 for unlabelled",
        )


def check_classes(known: Tensor, names: Sequence[str], where: str = "") -> None:
    """Refuses labels in which there is nothing to tell apart."""
    if not names and (len(known) < 2 or bool((known == known[0]).all())):
        raise ShapeError(f"Numbers to be regressed{where}", got="no two different ones", fix="give labels that vary")
    numbers = cast("list[int]", known.tolist())  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
    present = [names[number] for number in sorted(set(numbers))] if names else []
    if names and len(present) < 2:
        raise ShapeError(
            f"A probe needs two classes or more{where}",
            got=f"{len(known)} labels, all {present[0]!r}" if present else "no labels",
            fix="give labels of at least two classes",
        )


def words_of(text: object, label: object, number: int) -> tuple[str, list[tuple[int, int]], list[Label]]:
    """A prompt of words as text, the span of each word, and their labels."""
    words, own = list(cast("Sequence[str]", text)), list(cast("Sequence[Label]", label))
    if isinstance(text, str) or isinstance(label, str) or len(words) != len(own) or not words:
        raise ShapeError(
            f"Prompt {number}: labels do not match its words", got=f"{len(words)} words, {len(own)} labels"
        )
    spans, at = list[tuple[int, int]](), 0
    for word in words:
        spans.append((at, at + len(word)))
        at += len(word) + 1
    return " ".join(words), spans, own


def _plain(label: object) -> Label:
    """A label as Python has it, whatever library's number it was."""
    plain = cast("Any", label).item() if hasattr(label, "item") else label
    if plain is None or isinstance(plain, (str, int, float)):
        return plain
    raise ShapeError("A label was given", got=repr(plain), allowed="a text, a number, or None")


def numbered(labels: Sequence[object], names: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """Labels as numbers, and the names of the classes, empty where they were numbers to begin with."""
    plain = [_plain(label) for label in labels]
    known = [label for label in plain if label is not None]
    if any(isinstance(label, float) for label in known):
        texts = [label for label in known if isinstance(label, str)]
        if texts:
            raise ShapeError("Labels must be of one kind", got=f"numbers and texts ({texts[0]!r})")
        return torch.tensor([torch.nan if label is None else float(label) for label in plain]), ()
    kinds = Counter[Hashable](type(label).__name__ for label in known)
    if len(kinds) > 1:
        raise ShapeError("Labels must be of one kind", got=dict(kinds))
    classes = tuple(str(name) for name in names) or tuple(str(one) for one in sorted(cast("set[str]", set(known))))
    unknown = [label for label in known if str(label) not in classes]
    if unknown:
        raise ShapeError(f"Label {unknown[0]!r} was given", allowed=nearest(str(unknown[0]), classes))
    return torch.tensor([-1 if label is None else classes.index(str(label)) for label in plain]), classes


def check_splits(groups: Sequence[str], splits: Sequence[str]) -> None:
    """Refuses splits by other names, an empty one, and a group in two."""
    if not splits:
        return
    wrong = sorted(set(splits) - set(SPLITS))
    if wrong:
        raise ConfigError(f"Split {wrong[0]!r} was given", allowed=nearest(wrong[0], SPLITS))
    missing = [name for name in SPLITS if name not in splits]
    if missing:
        raise ConfigError("Splits of a probe dataset", got=f"no prompt in {missing[0]!r}", allowed=SPLITS)
    homes: dict[str, str] = {}
    for group, split in zip(groups, splits, strict=True):
        if homes.setdefault(group, split) != split:
            raise ShapeError(
                f"Group {group!r} is in two splits",
                got=f"{homes[group]} and {split}",
                fix="keep a group in one split, or leave splits out to have them drawn by group",
            )
