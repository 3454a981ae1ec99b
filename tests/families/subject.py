"""A family under test: its checkpoint loaded by MechXAI and by Hugging Face, and prompts for both."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

import mechxai as mx
from tests.families.edge_oracle import Names
from tests.families.layouts import names_of

WIDTH = 14  # longer than every window
LENGTHS = (14, 11)
LONG = 40  # longer than every threshold of the rotary tables
FIRST_WORD, LAST_WORD = 10, 190
CHANGED = slice(3, 5)
SHIFT = 37
ANSWERS, WRONG_ANSWERS = (50, 90), (60, 120)


@dataclass(frozen=True)
class Prompts:
    """Two pairs of prompts of different lengths.

    Attributes:
        clean: token ids, ``[prompt, pos]``.
        corrupted: the same with other tokens at two positions.
        lengths: of the prompts; the ids behind them are padding.
    """

    clean: Tensor
    corrupted: Tensor
    lengths: tuple[int, ...] = LENGTHS
    answers: tuple[int, ...] = ANSWERS
    wrong: tuple[int, ...] = WRONG_ANSWERS

    def rows(self, tokens: Tensor) -> list[Tensor]:
        """Each prompt alone and unpadded, ``[1, pos]``."""
        return [row[None, :length] for row, length in zip(tokens, self.lengths, strict=True)]

    def batch(self) -> Any:
        mask = torch.arange(self.clean.shape[1])[None] < torch.tensor(self.lengths)[:, None]
        return mx.ContrastBatch.from_tokens(
            self.clean, self.corrupted, torch.tensor(self.answers), torch.tensor(self.wrong), mask=mask
        )


def random_prompts(bos: int | None, seed: int = 1, width: int = WIDTH) -> Prompts:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randint(FIRST_WORD, LAST_WORD, (len(LENGTHS), width), generator=generator)
    if bos is not None:
        clean[:, 0] = bos
    corrupted = clean.clone()
    n_words = LAST_WORD - FIRST_WORD
    corrupted[:, CHANGED] = FIRST_WORD + (clean[:, CHANGED] - FIRST_WORD + SHIFT) % n_words
    return Prompts(clean, corrupted, LENGTHS if width == WIDTH else (width,) * len(LENGTHS))


@dataclass
class Subject:
    """One checkpoint, loaded as `mx.load` chooses and with raw weights, beside the Hugging Face model."""

    folder: Path
    seed: int = 1

    @cached_property
    def model(self) -> Any:
        """The model as ``mx.load`` chooses backend and processing."""
        return mx.load(str(self.folder), device="cpu")

    @cached_property
    def raw(self) -> Any:
        return mx.load(str(self.folder), device="cpu", processing="raw")

    @cached_property
    def hf(self) -> Any:
        """The Hugging Face model; its eager attention is the reference implementation."""
        architecture = transformers.AutoConfig.from_pretrained(self.folder).architectures[0]
        kind = getattr(transformers, architecture)
        try:
            model = kind.from_pretrained(self.folder, dtype=torch.float32, attn_implementation="eager")
        except ValueError:  # a family without eager attention
            model = kind.from_pretrained(self.folder, dtype=torch.float32)
        return model.eval()

    @cached_property
    def tokenizer(self) -> Any:
        return transformers.AutoTokenizer.from_pretrained(self.folder)

    @cached_property
    def names(self) -> Names | None:
        return names_of(self.hf)

    @cached_property
    def prompts(self) -> Prompts:
        return random_prompts(self.model.text.bos, self.seed)

    @property
    def loaded(self) -> str:
        """Backend and processing, such as "bridge, folded"."""
        return f"{self.model.backend.name}, {self.model.processing}"
