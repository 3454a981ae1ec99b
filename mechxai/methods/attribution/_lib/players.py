"""Players: the units that receive scores, which are tokens, words or named spans of a prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, check_choice
from mechxai.model.text import TextCodec

PlayerKind = Literal["token", "word", "span"]


@dataclass(frozen=True)
class Players:
    """The players of every prompt and the tokens of each.

    Attributes:
        of_token: number of each token's player, ``[batch, pos]``, on the CPU; -1 for tokens that are never deleted:
            padding, special tokens, and with ``span`` those outside every span.
        names: the players of every prompt, as text.
    """

    of_token: Int[Tensor, "batch pos"]
    names: tuple[tuple[str, ...], ...]

    @property
    def counts(self) -> list[int]:
        """Number of players of each prompt."""
        return [len(names) for names in self.names]

    @property
    def most(self) -> int:
        """The largest number of players of a prompt."""
        return max(self.counts)

    def has_player(self, device: torch.device) -> Bool[Tensor, "batch pos"]:
        """Whether each token belongs to a player."""
        return (self.of_token >= 0).to(device)

    def tokens_of(self, absent: Bool[Tensor, "cell batch player"]) -> Bool[Tensor, "cell batch pos"]:
        """The tokens of the absent players."""
        index = self.of_token.clamp(min=0)[None].expand(len(absent), -1, -1)
        return absent.gather(2, index) & (self.of_token >= 0)[None]


def players_of(codec: TextCodec, batch: ContrastBatch, kind: PlayerKind, *, special: bool = False) -> Players:
    """The players of every prompt.

    Args:
        codec: knows special tokens and where words begin.
        batch: the prompts.
        kind: ``token``; ``word``, tokens with no space between them; ``span``, the batch's roles of more than one
            position (``ROLE_first`` to ``ROLE``).
        special: whether special tokens (beginning of sequence, separators, the mask) are players too.

    Raises:
        ConfigError: an unknown kind, ``span`` on a batch without spans, or a prompt without players.
    """
    check_choice("players", kind, get_args(PlayerKind))
    if kind == "span":
        return _span_players(codec, batch)
    never_deleted = frozenset() if special else codec.special_ids()
    rows, names = [], []
    for number, (row, length) in enumerate(zip(batch.clean.tolist(), batch.lengths.tolist(), strict=True)):
        ids = row[:length]
        starts = codec.word_starts(ids) if kind == "word" else [True] * length
        deletable = [token not in never_deleted for token in ids]
        if not any(deletable):
            raise ConfigError(
                f"Prompt {number} has special tokens only: {codec.strings(ids)}",
                fix="Give it some text, or set special=true",
            )
        of_token = _player_numbers(starts, deletable)
        rows.append([*of_token, *[-1] * (len(row) - length)])
        names.append(_player_names(codec, ids, of_token))
    return Players(torch.tensor(rows), tuple(names))


def _player_numbers(starts: Sequence[bool], deletable: Sequence[bool]) -> list[int]:
    """The player of each token; a new player begins with a word and after a token that is never deleted."""
    numbers, last, previous_deletable = [], -1, False
    for begins, is_deletable in zip(starts, deletable, strict=True):
        last += is_deletable and (begins or not previous_deletable)
        numbers.append(last if is_deletable else -1)
        previous_deletable = is_deletable
    return numbers


def _player_names(codec: TextCodec, ids: Sequence[int], of_token: Sequence[int]) -> tuple[str, ...]:
    tokens_by_player: dict[int, list[int]] = {}
    for token, player in zip(ids, of_token, strict=True):
        if player >= 0:
            tokens_by_player.setdefault(player, []).append(token)
    return tuple(_text(codec, tokens_by_player[player]) for player in sorted(tokens_by_player))


def _text(codec: TextCodec, ids: Sequence[int]) -> str:
    if len(ids) == 1 or codec.tokenizer is None:
        return " ".join(codec.strings(ids))
    return codec.tokenizer.decode([int(token) for token in ids])


def _span_players(codec: TextCodec, batch: ContrastBatch) -> Players:
    spans = [role for role in batch.roles if f"{role}_first" in batch.roles]
    if not spans:
        raise ConfigError("players='span': the batch names no spans", fix="Give roles, or use token or word")
    of_token = torch.full(batch.clean.shape, -1)
    names = []
    for number in range(len(batch)):
        ends = sorted((int(batch.roles[f"{role}_first"][number]), int(batch.roles[role][number])) for role in spans)
        previous_last, texts = -1, list[str]()
        for first, last in ends:
            if first <= previous_last:
                continue  # inside or across the span before
            of_token[number, first : last + 1] = len(texts)
            texts.append(_text(codec, batch.clean[number, first : last + 1].tolist()))
            previous_last = last
        names.append(tuple(texts))
    return Players(of_token, tuple(names))
