"""Decoding with a cache of keys and values: many rows together, each written as it would be alone."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechxai.core.errors import AlignmentError, ModelSupportError, ShapeError
from mechxai.core.shapes import PromptInts, Tokens
from mechxai.model.backends.base import Backend
from mechxai.model.backends.limits import check_tokens
from mechxai.model.generation.cache_check import cache_check
from mechxai.model.generation.generator import Writing, Written, cut_at
from mechxai.model.generation.next_logits import GrowingRows
from mechxai.model.generation.stop_tokens import announce_settings, stop_ids
from mechxai.model.text import TextCodec

_TOKENS_AT_ONCE = {"cpu": 8192, "cuda": 131072}  # prompts and continuations together

WrittenTokens = Int[Tensor, "batch n_written"]


def rows_at_once(width: int, device: torch.device) -> int:
    """How many rows of so many tokens run together on a device."""
    return max(1, _TOKENS_AT_ONCE.get(device.type, _TOKENS_AT_ONCE["cpu"]) // max(1, width))


class Continuation(NamedTuple):
    """The tokens a model writes behind one row.

    Attributes:
        ids: the tokens, without the special token that ended them.
        written: their text, and whether it ended by itself.
    """

    ids: tuple[int, ...]
    written: Written


@dataclass(frozen=True, eq=False)
class Decoder:
    """Writes behind rows of tokens. Rows of any length run together, from the left and unpadded.

    While a row is inside its prompt, its next token is the prompt's; behind the prompt it is the one that is drawn. The
    cache is TransformerLens' or the one that Hugging Face makes for the model; `CacheCheck` compares it with full
    passes first, which replace it where it changes the logits. Each row draws from a generator of its own (seed and
    prompt), which is why Hugging Face's ``generate``, whose rows share one, is not used.

    Attributes:
        name: of the model, for errors.
        backend: the model.
        text: its tokenizer; a model without one decodes tokens to empty texts.
        device: of the weights.
        counts: forward passes of one row (a token written is one), and tokens written, so far.
    """

    name: str
    backend: Backend
    text: TextCodec
    device: torch.device
    counts: dict[str, float] = field(default_factory=lambda: {"forward_passes": 0.0, "tokens_written": 0.0})

    def __post_init__(self) -> None:
        if not self.backend.architecture().causal:
            raise ModelSupportError(
                f"{self.name} is bidirectional: it cannot continue a text", fix="Use a causal language model"
            )

    def prompt_ids(self, prompt: str) -> list[int]:
        """The tokens of a prompt.

        Raises:
            AlignmentError: a word outside the vocabulary.
        """
        ids = self.text.ids(prompt)
        if self.text.unknown in ids:
            tokens = " ".join(self.text.strings(ids))
            raise AlignmentError(
                f"{prompt!r} has words outside the vocabulary of {self.name}: {tokens}",
                fix="Use the task's words and those of its wording",
            )
        return ids

    def continuations(self, rows: Sequence[Sequence[int]], writing: Writing) -> list[Continuation]:
        """What the model writes behind each row.

        Cost: a pass per row, one per token written, and one per token by which a row is longer than the shortest beside
        it.

        Raises:
            ShapeError: an empty row, or one that leaves no room in the model's context.
        """
        n_ctx = self.backend.architecture().n_ctx
        for number, row in enumerate(rows):
            if not row:
                raise ShapeError(f"Prompt {number} is empty: a prompt needs at least one token")
            if len(row) >= n_ctx:
                raise ShapeError(
                    f"Prompt {number} has {len(row)} tokens: {self.name} continues prompts of fewer than {n_ctx}",
                    fix="Shorten the prompt",
                )
        by_number: dict[int, Continuation] = {}
        for numbers in self._groups([len(row) for row in rows], writing.max_tokens):
            written = self._halving([rows[number] for number in numbers], writing)
            by_number.update(zip(numbers, written, strict=True))
        return [by_number[number] for number in range(len(rows))]

    def _groups(self, lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
        """The numbers of the rows that run together, the shortest rows first."""
        if not lengths:
            return []
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        n_tokens = max(lengths) + max_tokens
        announce_settings(self.backend, self.name)
        check = cache_check(self.backend)
        apart = check.allows(n_tokens, self.name, self.device) and check.needs_equal_lengths(n_tokens)
        groups = [list(group) for _, group in groupby(order, key=lengths.__getitem__)] if apart else [order]
        size = rows_at_once(n_tokens, self.device)
        return [group[start : start + size] for group in groups for start in range(0, len(group), size)]

    def continued_tokens(self, tokens: Tokens, lengths: PromptInts | None, writing: Writing) -> WrittenTokens:
        """The tokens written behind each row of tokens, ``[batch, n_written]``; -1 behind a row's end.

        Args:
            tokens: ``[batch, pos]``, padded on the right.
            lengths: real tokens per row; all when None.
            writing: how to continue.
        """
        check_tokens(tokens, self.backend.architecture(), self.name)
        ends = [tokens.shape[1]] * len(tokens) if lengths is None else lengths.tolist()
        rows = [row[:end] for row, end in zip(tokens.tolist(), ends, strict=True)]
        written = [found.ids for found in self.continuations(rows, writing)]
        filled = tokens.new_full((len(written), max(map(len, written), default=0)), -1)
        for row, ids in zip(filled, written, strict=True):
            row[: len(ids)] = torch.tensor(ids, dtype=tokens.dtype)
        return filled

    def _halving(self, rows: Sequence[Sequence[int]], writing: Writing) -> list[Continuation]:
        """Decodes rows together; where memory runs out, half of them at a time."""
        try:
            return self.decoded(rows, writing)
        except torch.cuda.OutOfMemoryError:
            if len(rows) == 1:
                raise
            torch.cuda.empty_cache()
            middle = len(rows) // 2
            return [*self._halving(rows[:middle], writing), *self._halving(rows[middle:], writing)]

    @torch.no_grad()
    def decoded(self, rows: Sequence[Sequence[int]], writing: Writing) -> list[Continuation]:
        """The continuations of rows that run together, however many."""
        draw = _Sampler(rows, writing, self.device)
        n_ctx, special = self.backend.architecture().n_ctx, stop_ids(self.backend, self.text)
        written: list[list[int]] = [[] for _ in rows]
        done: dict[int, Written] = {}
        shortest = min(map(len, rows))
        growing = self._growing(len(rows), max(map(len, rows)) + writing.max_tokens)
        step = torch.tensor([list(row[:shortest]) for row in rows], device=self.device)
        for position in range(shortest, n_ctx + 1):
            self.counts["forward_passes"] += len(rows) - len(done)
            logits = growing.extended(step)[:, -1].float()
            ids = draw(logits, [len(row) <= position and number not in done for number, row in enumerate(rows)])
            for number, row in enumerate(rows):
                if position < len(row):
                    ids[number] = row[position]
                elif number not in done:
                    text = self._text_at_end(written[number], ids[number], writing=writing, special=special)
                    if text is not None or position == n_ctx:
                        so_far = self._decode(written[number])
                        done[number] = text or Written(self._readable(so_far, written[number], writing), ended=False)
            if len(done) == len(rows):
                break
            step = torch.tensor(ids, device=self.device)[:, None]
        return [Continuation(tuple(written[number]), done[number]) for number in range(len(rows))]

    def _growing(self, n_rows: int, n_tokens: int) -> GrowingRows:
        """Rows without tokens, which will have at most so many."""
        check = cache_check(self.backend)
        allowed = check.allows(n_tokens, self.name, self.device)
        return GrowingRows(self.backend, n_rows, check.lengths, cached=allowed)

    def _text_at_end(
        self, written: list[int], token: int, *, writing: Writing, special: frozenset[int]
    ) -> Written | None:
        """Adds a token to a row; the row's text where the token ends it, else None."""
        if token not in special:
            written.append(token)
            self.counts["tokens_written"] += 1
        text, stopped = cut_at(self._decode(written), writing.stop)
        ended = stopped or token in special
        if not ended and len(written) < writing.max_tokens:
            return None
        return Written(self._readable(text, written, writing), ended)

    def _readable(self, text: str, written: Sequence[int], writing: Writing) -> str:
        """A text that the model can read again: words apart where its tokenizer would merge them into unknown ones."""
        if self.text.unknown is None or self.text.unknown not in self.text.ids(text):
            return text
        return cut_at(" ".join(self._decode([token]).strip() for token in written), writing.stop)[0]

    def _decode(self, ids: Sequence[int]) -> str:
        return "" if self.text.tokenizer is None else self.text.tokenizer.decode(list(ids))


class _Sampler:
    """Draws the next token of each row with one random number from the row's own generator."""

    def __init__(self, rows: Sequence[Sequence[int]], writing: Writing, device: torch.device) -> None:
        self._temperature, self._device = writing.temperature, device
        self._generators = [torch.Generator().manual_seed(_seed(writing.seed, row)) for row in rows]

    def __call__(self, logits: Float[Tensor, "rows d_vocab"], drawing: Sequence[bool]) -> list[int]:
        """A token for each row; meaningless for rows that do not draw."""
        if self._temperature == 0:
            return logits.argmax(-1).tolist()
        draws = [
            float(torch.rand((), generator=generator, dtype=torch.float64)) if draws_now else 0.5
            for generator, draws_now in zip(self._generators, drawing, strict=True)
        ]
        cumulative = (logits.double() / self._temperature).softmax(-1).cumsum(-1)
        wanted = torch.tensor(draws, device=self._device, dtype=torch.float64)[:, None] * cumulative[:, -1:]
        ids: Int[Tensor, "rows one"] = torch.searchsorted(cumulative, wanted, right=True)
        return ids.clamp(max=logits.shape[1] - 1)[:, 0].tolist()


def _seed(seed: int, row: Sequence[int]) -> int:
    digest = hashlib.blake2b(repr((seed, list(row))).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % 2**63
