"""Text to tokens and back: beginning-of-sequence tokens, positions of words, aligned pairs of prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mechxai.core.batch import Answer, ContrastBatch
from mechxai.core.errors import AlignmentError, ConfigError, ModelSupportError, ShapeError
from mechxai.model.prompt_inputs import answer_columns, text_columns, texts_or_tokens
from mechxai.model.unknown_words import announce_unknown_words, check_answer_known, unknown_id

Prompts = Any  # a text, texts, or token ids, in any form that `texts_or_tokens` takes
Column = Any  # texts or answers, one entry per prompt: a list, tuple, numpy array or pandas Series


@dataclass(frozen=True)
class TextCodec:
    """A tokenizer and the model's conventions with it.

    Attributes:
        tokenizer: a Hugging Face fast tokenizer, or None for a model that only takes tokens.
        bos: id of the beginning-of-sequence token before every prompt, or None.
        masked: for a masked language model: prompts get the tokenizer's special tokens, and the answer is at the mask.
        prefix: all tokens before every prompt, where they are more than ``bos``.
    """

    tokenizer: Any
    bos: int | None
    masked: bool = False
    prefix: tuple[int, ...] = ()

    def ids(self, text: str) -> list[int]:
        """The tokens of one prompt, special tokens included."""
        body = self._require()(text, add_special_tokens=self.masked)["input_ids"]
        start = [] if self.masked or self.bos is None else list(self.prefix or (self.bos,))
        return list(body) if body[: len(start)] == start else [*start, *body]

    def bare_ids(self, text: str) -> list[int]:
        """The tokens of a text without special tokens."""
        return list(self._require()(text, add_special_tokens=False)["input_ids"])

    def tokens_at(self, text: str, span: tuple[int, int]) -> tuple[int, int]:
        """The first and the last token that overlap a character span, in the coordinates of `ids`."""
        return self.all_tokens_at(text, [span])[0]

    def all_tokens_at(self, text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """`tokens_at` of several spans of one text, which is encoded once."""
        encoded = self._require()(text, add_special_tokens=self.masked, return_offsets_mapping=True)
        shift = len(self.ids(text)) - len(encoded["input_ids"])
        ranges = []
        for span in spans:
            inside = [i for i, (low, high) in enumerate(encoded["offset_mapping"]) if low < span[1] and high > span[0]]
            if not inside:
                raise AlignmentError(f"No token covers characters {span} of {text!r}", fix="Check the span")
            ranges.append((inside[0] + shift, inside[-1] + shift))
        return ranges

    def strings(self, ids: Sequence[int] | Tensor) -> tuple[str, ...]:
        """Each token as text, as it would be printed; ids for a model without a tokenizer."""
        if self.tokenizer is None:
            return tuple(str(int(token)) for token in ids)
        return tuple(self.tokenizer.decode([int(token)]) for token in ids)

    @property
    def unknown(self) -> int | None:
        """The id for words outside the vocabulary; None where another special token has the same id."""
        return unknown_id(self.tokenizer, None if self.masked else self.bos)

    def special_ids(self) -> frozenset[int]:
        """The ids of the tokenizer's special tokens, without that of unknown words, and of the first token."""
        special = {*(getattr(self.tokenizer, "all_special_ids", None) or []), self.bos}
        return frozenset(special - {None, self.unknown})

    def word_starts(self, ids: Sequence[int]) -> list[bool]:
        """Whether each token begins a word: it follows a space, or it is punctuation or follows some.

        Decided by how neighbours decode together, which works for byte-level, WordPiece and whole-word tokenizers.
        """
        tokenizer, strings, special = self._require(), self.strings(ids), self.special_ids()
        starts = []
        for number, string in enumerate(strings):
            before = strings[number - 1] if number else ""
            pair = tokenizer.decode([int(ids[number - 1]), int(ids[number])]) if number else string
            rest = pair.lstrip()[len(before.lstrip()) :] if pair.lstrip().startswith(before.lstrip()) else string
            apart = rest[:1].isspace() or _is_mark(string) or _is_mark(before)
            edge = not number or before == "" or bool(special & {int(ids[number - 1]), int(ids[number])})
            starts.append(edge or apart)
        return starts

    def plain_ids(self, d_vocab: int) -> Tensor:
        """All token ids except the tokenizer's special ones, ``[token]``."""
        special = set(getattr(self.tokenizer, "all_special_ids", None) or [])
        return torch.tensor([token for token in range(d_vocab) if token not in special])

    def texts(self, prompts: object) -> list[str]:
        """The texts of a text, a list, a numpy array or a pandas Series, checked.

        Raises:
            ConfigError: something else than texts.
            ShapeError: no text at all.
        """
        texts = texts_or_tokens(prompts)
        if isinstance(texts, Tensor):
            raise ConfigError("Prompts must be texts here, not token ids", fix="Pass the texts")
        return texts

    def batch(self, prompts: object) -> tuple[Tensor, Tensor]:
        """Tokens ``[batch, pos]`` padded on the right, and lengths ``[batch]``.

        Raises:
            ShapeError: no text, or one without tokens.
        """
        texts = self.texts(prompts)
        rows = [self.ids(text) for text in texts]
        announce_unknown_words(self.tokenizer, texts)
        for number, row in enumerate(rows):
            self._check_not_empty(number, row)
        return padded(rows), torch.tensor([len(row) for row in rows])

    def answer(self, prompt: str, answer: Answer) -> list[int]:
        """The tokens that ``answer`` adds to ``prompt``; an answer may also be a token id.

        Raises:
            AlignmentError: appending the answer changes the prompt's tokens, so there is no answer position.
        """
        if isinstance(answer, int):
            return [answer]
        if self.masked:
            return self.bare_ids(answer)
        before, after = self.ids(prompt), self.ids(prompt + answer)
        if after[: len(before)] != before or len(after) == len(before):
            raise AlignmentError(
                f"Appending answer {answer!r} to {prompt!r} changes the prompt's tokens: {self.strings(before)} became "
                f"{self.strings(after)}",
                fix="End the prompt without a space and begin the answer with one",
            )
        return after[len(before) :]

    def answer_position(self, ids: Sequence[int]) -> int:
        """The position where the answer is predicted: the last token, or the mask of a masked language model."""
        if not self.masked:
            return len(ids) - 1
        mask = self._require().mask_token_id
        n_masks = list(ids).count(mask)
        if n_masks != 1:
            raise ShapeError(
                f"The prompt has {n_masks} mask tokens: a masked language model needs one",
                fix=f"Write {self._require().mask_token} in place of the answer",
            )
        return list(ids).index(mask)

    def contrast(  # noqa: PLR0917 - the order of `ContrastBatch.from_prompts`
        self,
        clean: Column,
        corrupted: Column,
        answers: Column,
        wrong: Column,
        *,
        roles: Sequence[Mapping[str, tuple[int, int]]] | None,
    ) -> ContrastBatch:
        """The batch of these texts; see `ContrastBatch.from_prompts`. An answer may also be a list of alternatives."""
        clean, corrupted = text_columns(clean=clean, corrupted=corrupted)
        answers, wrong = answer_columns(answers=answers, wrong=wrong)
        counts = {"clean": len(clean), "corrupted": len(corrupted), "answers": len(answers), "wrong": len(wrong)}
        if roles is not None:
            counts["roles"] = len(roles)
        if len(set(counts.values())) != 1 or not clean:
            listed = ", ".join(f"{count} {name}" for name, count in counts.items())
            raise ShapeError(f"Prompts and answers must come in equal numbers, not {listed}")
        announce_unknown_words(self.tokenizer, [*clean, *corrupted])
        clean_ids, corrupted_ids = [self.ids(text) for text in clean], [self.ids(text) for text in corrupted]
        self._check_equal_lengths(clean_ids, corrupted_ids)
        answer_ids, wrong_ids = self._answer_ids(clean, answers), self._answer_ids(clean, wrong)
        places = [self.places(text, spans) for text, spans in zip(clean, roles or [{}] * len(clean), strict=True)]
        shared = set(places[0]).intersection(*places[1:]) if places else set()
        for number, row in enumerate(clean_ids):
            self._check_not_empty(number, row)
        tokens = padded(clean_ids)
        return ContrastBatch(
            clean=tokens,
            corrupted=padded(corrupted_ids),
            lengths=torch.tensor([len(row) for row in clean_ids]),
            answers=_answer_tensor(answer_ids),
            wrong=_answer_tensor(wrong_ids),
            answer_pos=torch.tensor([self.answer_position(row) for row in clean_ids]),
            roles={role: torch.tensor([place[role] for place in places]) for role in sorted(shared)},
            axis=self.axis(tokens, [len(row) for row in clean_ids]),
            strings=tuple(self.strings(row) for row in clean_ids),
        )

    def _check_not_empty(self, number: int, row: Sequence[int]) -> None:
        if not row:
            raise ShapeError(f"Prompt {number} is empty: a prompt needs at least one token")

    def _check_equal_lengths(self, clean: Sequence[Sequence[int]], corrupted: Sequence[Sequence[int]]) -> None:
        for number, (row, other) in enumerate(zip(clean, corrupted, strict=True)):
            if len(row) != len(other):
                raise AlignmentError(
                    f"Prompt {number}: clean and corrupted must have the same number of tokens, not {len(row)} "
                    f"{self.strings(row)} and {len(other)} {self.strings(other)}",
                    fix="Replace words by words of as many tokens",
                )

    def _answer_ids(
        self, prompts: Sequence[str], answers: Sequence[Answer | Sequence[Answer]]
    ) -> list[list[list[int]]]:
        """The tokens of each prompt's alternative answers, which the tokenizer must know."""
        for prompt, answer in zip(prompts, answers, strict=True):
            for alternative in _alternatives(answer):
                check_answer_known(self.tokenizer, "" if self.masked else prompt, alternative, unknown=self.unknown)
        return [
            [self.answer(prompt, alternative) for alternative in _alternatives(answer)]
            for prompt, answer in zip(prompts, answers, strict=True)
        ]

    def places(self, text: str, spans: Mapping[str, tuple[int, int]]) -> dict[str, int]:
        """The position of each role's last token; ``<role>_first`` is that of its first."""
        positions: dict[str, int] = {}
        for role, span in spans.items():
            positions[f"{role}_first"], positions[role] = self.tokens_at(text, span)
        return positions

    def axis(self, tokens: Tensor, lengths: Sequence[int]) -> tuple[str, ...]:
        """One string per position where every prompt has the same token, else ``""``."""
        shared = [
            tokens[0, pos].item() if bool((tokens[:, pos] == tokens[0, pos]).all()) and min(lengths) > pos else None
            for pos in range(tokens.shape[1])
        ]
        return tuple("" if token is None else self.strings([int(token)])[0].strip() for token in shared)

    def _require(self) -> Any:
        if self.tokenizer is None:
            raise ModelSupportError(
                "This model has no tokenizer: it takes token ids, not text",
                fix="Pass token ids (mx.ContrastBatch.from_tokens), or mx.wrap(model, tokenizer=...)",
            )
        return self.tokenizer


def padded(rows: Sequence[Sequence[int]], fill: int = 0) -> Tensor:
    """Rows of token ids as a tensor ``[batch, pos]``, padded on the right."""
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])


def _is_mark(token: str) -> bool:
    """Whether a token has neither letters nor digits (nor bytes of a character cut in two)."""
    stripped = token.strip()
    letters = "\ufffd'\N{RIGHT SINGLE QUOTATION MARK}#"
    return bool(stripped) and not any(char.isalnum() or char in letters for char in stripped)


def _answer_tensor(rows: Sequence[Sequence[Sequence[int]]]) -> Tensor:
    width = max(len(tokens) for row in rows for tokens in row)
    n_alt = max(len(row) for row in rows)
    blank = [-1] * width
    return torch.tensor([[[*tokens, *blank][:width] for tokens in row] + [blank] * (n_alt - len(row)) for row in rows])


def _alternatives(answer: Answer | Sequence[Answer]) -> Sequence[Answer]:
    alternatives = [answer] if isinstance(answer, (str, int)) else list(answer)
    if not alternatives:
        raise ConfigError("A prompt has an empty list of answers", fix="Give every prompt at least one answer")
    return alternatives
