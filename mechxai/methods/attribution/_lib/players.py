"""What an attribution gives scores to: tokens, words, or named spans of a prompt."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, check_choice
from mechxai.model.text import TextCodec

KINDS = ("token", "word", "span")


@dataclass(frozen=True)
class Players:
    """Which tokens come and go together.

    Attributes:
        of_token: the number of each token's player, ``[batch, pos]``, on the CPU; -1 for tokens that always stay:
            padding, special tokens, and in ``span`` those of no span.
        names: the players of every prompt, as text.
    """

    of_token: Int[Tensor, "batch pos"]
    names: tuple[tuple[str, ...], ...]

    @property
    def counts(self) -> list[int]:
        """How many there are in each prompt."""
        return [len(names) for names in self.names]

    @property
    def most(self) -> int:
        """How many there are in the prompt that has most."""
        return max(self.counts)

    def free(self, device: torch.device) -> Bool[Tensor, "batch pos"]:
        """The tokens that have a player."""
        return (self.of_token >= 0).to(device)

    def tokens_of(self, absent: Bool[Tensor, "cell batch player"]) -> Bool[Tensor, "cell batch pos"]:
        """The tokens of players."""
        index = self.of_token.clamp(min=0)[None].expand(len(absent), -1, -1)
        return absent.gather(2, index) & (self.of_token >= 0)[None]


def players_of(codec: TextCodec, batch: ContrastBatch, kind: str, *, special: bool = False) -> Players:
    """The players of every prompt.

    Args:
        codec: knows special tokens and where words begin.
        batch: the prompts.
        kind: ``token``; ``word``, tokens with no space between them; ``span``, the batch's roles of more than a
            position (``ROLE_first`` to ``ROLE``), all other tokens staying as they are.
        special: whether special tokens (beginning of sequence, separators, the mask) are players too.

    Raises:
        ConfigError: another kind, spans of a batch without any, or a prompt without players.
    """
    check_choice("players", kind, KINDS)
    if kind == "span":
        return _spans(codec, batch)
    kept = frozenset() if special else codec.special_ids()
    rows, names = [], []
    for number, (row, length) in enumerate(zip(batch.clean.tolist(), batch.lengths.tolist(), strict=True)):
        ids = row[:length]
        starts = codec.word_starts(ids) if kind == "word" else [True] * length
        free = [token not in kept for token in ids]
        if not any(free):
            raise ConfigError(
                f"Prompt {number} has nothing to attribute to",
                got=f"special tokens only: {codec.strings(ids)}",
                fix="give it some text, or special=true",
            )
        of_token = _numbered(starts, free)
        rows.append([*of_token, *[-1] * (len(row) - length)])
        names.append(_names(codec, ids, of_token))
    return Players(torch.tensor(rows), tuple(names))


def _numbered(starts: Sequence[bool], free: Sequence[bool]) -> list[int]:
    """The player of each token: a new one where a word begins, or after a token that stays."""
    found, last, before = [], -1, False
    for begins, is_free in zip(starts, free, strict=True):
        last += is_free and (begins or not before)
        found.append(last if is_free else -1)
        before = is_free
    return found


def _names(codec: TextCodec, ids: Sequence[int], of_token: Sequence[int]) -> tuple[str, ...]:
    parts: dict[int, list[int]] = {}
    for token, player in zip(ids, of_token, strict=True):
        if player >= 0:
            parts.setdefault(player, []).append(token)
    return tuple(_text(codec, parts[player]) for player in sorted(parts))


def _text(codec: TextCodec, ids: Sequence[int]) -> str:
    if len(ids) == 1 or codec.tokenizer is None:
        return " ".join(codec.strings(ids))
    return codec.tokenizer.decode([int(token) for token in ids])


def _spans(codec: TextCodec, batch: ContrastBatch) -> Players:
    spans = [role for role in batch.roles if f"{role}_first" in batch.roles]
    if not spans:
        raise ConfigError(
            "players='span' was asked", got="a batch without named spans", fix="give roles, or use token or word"
        )
    of_token = torch.full(batch.clean.shape, -1)
    names = []
    for number in range(len(batch)):
        ends = sorted((int(batch.roles[f"{role}_first"][number]), int(batch.roles[role][number])) for role in spans)
        taken, texts = -1, list[str]()
        for first, last in ends:
            if first <= taken:
                continue  # a span inside one that began before it
            of_token[number, first : last + 1] = len(texts)
            texts.append(_text(codec, batch.clean[number, first : last + 1].tolist()))
            taken = last
        names.append(tuple(texts))
    return Players(of_token, tuple(names))
