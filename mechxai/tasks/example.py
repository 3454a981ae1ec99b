"""A clean and a corrupted prompt as text, and the held-out split of word combinations."""

import string
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Split = Literal["all", "train", "held_out"]


@dataclass(frozen=True)
class Example:
    """A clean and a corrupted prompt that differ in a few words, with their answers.

    Attributes:
        answers: alternative right answers to ``clean``, each with its leading space if it has one.
        wrong: alternative right answers to ``corrupted``.
        spans: role -> character span in ``clean`` (``S2`` -> (38, 42)); the role has the same tokens in ``corrupted``.
        template: the template it was drawn from; probes split by it.
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
    """Whether a combination of words is in the tenth that the bundled models were not trained on."""
    return zlib.crc32("|".join(parts).encode()) % 10 == 0


def in_split(split: Split, *parts: str) -> bool:
    """Whether a combination of words belongs to a split."""
    return split == "all" or is_held_out(*parts) == (split == "held_out")
