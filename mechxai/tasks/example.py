"""One prompt pair as text, before any tokenizer has seen it."""

import string
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

_SPLITS = ("all", "train", "held_out")


@dataclass(frozen=True)
class Example:
    """A clean and a corrupted prompt that differ in a few words, and what should follow.

    Attributes:
        answers: the alternatives that are right after ``clean``; ``wrong`` those that are right after ``corrupted``.
            Each is written as it is appended to the prompt, with its leading space where there is one.
        spans: role -> character span in ``clean`` (``S2`` -> (38, 42)); the same tokens hold the role in ``corrupted``.
        template: which template made it; probes split by it.
    """

    clean: str
    corrupted: str
    answers: tuple[str, ...]
    wrong: tuple[str, ...]
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    template: str = ""


def fill(template: str, values: Mapping[str, str]) -> tuple[str, dict[str, tuple[int, int]]]:
    """A template with its ``{fields}`` filled in, and the character span of every field."""
    text, spans = "", {}
    for literal, name, _, _ in string.Formatter().parse(template):
        text += literal
        if name is not None:
            spans[name] = (len(text), len(text) + len(values[name]))
            text += values[name]
    return text, spans


def is_held_out(*parts: str) -> bool:
    """Whether a combination of words belongs to the tenth that no bundled model was trained on."""
    return zlib.crc32("|".join(parts).encode()) % 10 == 0


def in_split(split: str, *parts: str) -> bool:
    """Whether a combination may be drawn from ``split``: ``all``, ``train`` or ``held_out``."""
    return split == "all" or is_held_out(*parts) == (split == "held_out")


def known_split(split: str) -> bool:
    """Whether ``split`` is one of the three."""
    return split in _SPLITS
