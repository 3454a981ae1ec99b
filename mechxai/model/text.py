"""Text to tokens and back: one beginning-of-sequence token, positions of words, prompts in line with each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mechxai.core.batch import Answer, ContrastBatch
from mechxai.core.errors import AlignmentError, ConfigError, ModelSupportError, ShapeError


@dataclass(frozen=True)
class TextCodec:
    """A tokenizer and the model's habits with it.

    Attributes:
        tokenizer: a Hugging Face fast tokenizer, or None for a model that only takes tokens.
        bos: id put before every prompt, or None.
        masked: a masked language model: prompts get the tokenizer's own special tokens, the answer stands at its mask.
    """

    tokenizer: Any
    bos: int | None
    masked: bool = False

    def ids(self, text: str) -> list[int]:
        """The tokens of one prompt, special tokens included."""
        body = self._require()(text, add_special_tokens=self.masked)["input_ids"]
        if self.masked or self.bos is None or body[:1] == [self.bos]:
            return list(body)
        return [self.bos, *body]

    def bare_ids(self, text: str) -> list[int]:
        """The tokens of a text, no special ones put around it."""
        return list(self._require()(text, add_special_tokens=False)["input_ids"])

    def tokens_at(self, text: str, span: tuple[int, int]) -> tuple[int, int]:
        """The first and the last token that overlap a character span, in the coordinates of `ids`."""
        return self.all_tokens_at(text, [span])[0]

    def all_tokens_at(self, text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """`tokens_at` of several spans of one text, which is encoded once."""
        encoded = self._require()(text, add_special_tokens=self.masked, return_offsets_mapping=True)
        shift = len(self.ids(text)) - len(encoded["input_ids"])
        found = []
        for span in spans:
            inside = [i for i, (low, high) in enumerate(encoded["offset_mapping"]) if low < span[1] and high > span[0]]
            if not inside:
                raise AlignmentError(f"No token covers characters {span} of {text!r}", fix="check the span")
            found.append((inside[0] + shift, inside[-1] + shift))
        return found

    def strings(self, ids: Sequence[int] | Tensor) -> tuple[str, ...]:
        """Each token as text, as it would be printed; bare ids where there is no tokenizer."""
        if self.tokenizer is None:
            return tuple(str(int(token)) for token in ids)
        return tuple(self.tokenizer.decode([int(token)]) for token in ids)

    @property
    def unknown(self) -> int | None:
        """The id that stands for words outside the vocabulary, unless one id stands for that and for bos."""
        found = getattr(self.tokenizer, "unk_token_id", None)
        return None if found == self.bos else found

    def special_ids(self) -> frozenset[int]:
        """The tokenizer's special tokens, and what is put before every prompt."""
        special = getattr(self.tokenizer, "all_special_ids", None) or []
        return frozenset(special if self.bos is None else [*special, self.bos])

    def word_starts(self, ids: Sequence[int]) -> list[bool]:
        """Whether each token begins a word: a space stands before it, or it is punctuation or follows some.

        Read from how neighbours decode together, so it holds for byte-level, WordPiece and whole-word tokenizers alike.
        """
        tokenizer, alone, special = self._require(), self.strings(ids), self.special_ids()
        starts = []
        for number, own in enumerate(alone):
            before = alone[number - 1] if number else ""
            pair = tokenizer.decode([int(ids[number - 1]), int(ids[number])]) if number else own
            rest = pair.lstrip()[len(before.lstrip()) :] if pair.lstrip().startswith(before.lstrip()) else own
            apart = rest[:1].isspace() or _is_mark(own) or _is_mark(before)
            edge = not number or before == "" or bool(special & {int(ids[number - 1]), int(ids[number])})
            starts.append(edge or apart)
        return starts

    def plain_ids(self, d_vocab: int) -> Tensor:
        """Every token id but the tokenizer's special ones, ``[token]``."""
        special = set(getattr(self.tokenizer, "all_special_ids", None) or [])
        return torch.tensor([token for token in range(d_vocab) if token not in special])

    def batch(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens ``[batch, pos]`` padded on the right, and lengths ``[batch]``."""
        rows = [self.ids(text) for text in texts]
        if not rows or not all(rows):
            raise ShapeError(
                "Prompts were given", got="none, or an empty one", fix="give at least one token per prompt"
            )
        return padded(rows), torch.tensor([len(row) for row in rows])

    def answer(self, prompt: str, answer: Answer) -> list[int]:
        """The tokens that ``answer`` adds to ``prompt``; a token's id stands for itself.

        Raises:
            AlignmentError: appending it changes the prompt's own tokens, so there is no answer position.
        """
        if isinstance(answer, int):
            return [answer]
        if self.masked:
            return self.bare_ids(answer)
        before, after = self.ids(prompt), self.ids(prompt + answer)
        if after[: len(before)] != before or len(after) == len(before):
            raise AlignmentError(
                f"Appending answer {answer!r} to {prompt!r} changes the prompt's own tokens",
                got=f"{self.strings(before)} became {self.strings(after)}",
                fix="end the prompt without a space and begin the answer with one",
            )
        return after[len(before) :]

    def answer_position(self, ids: Sequence[int]) -> int:
        """Where the answer is predicted: the last token, or the mask of a masked language model."""
        if not self.masked:
            return len(ids) - 1
        mask = self._require().mask_token_id
        if list(ids).count(mask) != 1:
            raise ShapeError(
                "A prompt for a masked model needs one mask token",
                got=f"{list(ids).count(mask)}",
                fix=f"write {self._require().mask_token} where the answer goes",
            )
        return list(ids).index(mask)

    def contrast(  # noqa: PLR0917 - the order of `ContrastBatch.from_prompts`
        self,
        clean: Sequence[str],
        corrupted: Sequence[str],
        answers: Sequence[Answer | Sequence[Answer]],
        wrong: Sequence[Answer | Sequence[Answer]],
        *,
        roles: Sequence[Mapping[str, tuple[int, int]]] | None,
    ) -> ContrastBatch:
        """See `ContrastBatch.from_prompts`; an answer may also be a list of alternatives."""
        counts = {"clean": len(clean), "corrupted": len(corrupted), "answers": len(answers), "wrong": len(wrong)}
        if roles is not None:
            counts["roles"] = len(roles)
        if len(set(counts.values())) != 1 or not clean:
            raise ShapeError("Prompts and answers must come in equal numbers", got=counts)
        clean_ids, corrupted_ids = [self.ids(text) for text in clean], [self.ids(text) for text in corrupted]
        for i, (good, bad) in enumerate(zip(clean_ids, corrupted_ids, strict=True)):
            if len(good) != len(bad):
                raise AlignmentError(
                    f"Prompt {i}: clean and corrupted must have the same number of tokens",
                    got=f"{len(good)} {self.strings(good)} and {len(bad)} {self.strings(bad)}",
                    fix="replace words by words of as many tokens",
                )
        right = [
            [self.answer(text, one) for one in _listed(answer)] for text, answer in zip(clean, answers, strict=True)
        ]
        other = [[self.answer(text, one) for one in _listed(answer)] for text, answer in zip(clean, wrong, strict=True)]
        places = [self.places(text, spans) for text, spans in zip(clean, roles or [{}] * len(clean), strict=True)]
        shared = set(places[0]).intersection(*places[1:]) if places else set()
        tokens = padded(clean_ids)
        return ContrastBatch(
            clean=tokens,
            corrupted=padded(corrupted_ids),
            lengths=torch.tensor([len(row) for row in clean_ids]),
            answers=_answer_tensor(right),
            wrong=_answer_tensor(other),
            answer_pos=torch.tensor([self.answer_position(row) for row in clean_ids]),
            roles={role: torch.tensor([place[role] for place in places]) for role in sorted(shared)},
            axis=self.axis(tokens, [len(row) for row in clean_ids]),
            strings=tuple(self.strings(row) for row in clean_ids),
        )

    def places(self, text: str, spans: Mapping[str, tuple[int, int]]) -> dict[str, int]:
        """Each role's last token; a role of several tokens also has ``<role>_first``."""
        found: dict[str, int] = {}
        for role, span in spans.items():
            found[f"{role}_first"], found[role] = self.tokens_at(text, span)
        return found

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
                "Text was given to a model without a tokenizer",
                fix="pass token ids (ContrastBatch.from_tokens), or mx.wrap(model, tokenizer=...)",
            )
        return self.tokenizer


def padded(rows: Sequence[Sequence[int]], fill: int = 0) -> Tensor:
    """Rows as a tensor ``[batch, pos]``, filled up on the right."""
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])


def _is_mark(token: str) -> bool:
    """Whether a token holds neither letters nor digits (nor bytes of a character cut in two)."""
    bare = token.strip()
    return bool(bare) and not any(char.isalnum() or char in "\ufffd'\N{RIGHT SINGLE QUOTATION MARK}#" for char in bare)


def _answer_tensor(rows: Sequence[Sequence[Sequence[int]]]) -> Tensor:
    width = max(len(tokens) for row in rows for tokens in row)
    n_alt = max(len(row) for row in rows)
    blank = [-1] * width
    return torch.tensor([[[*tokens, *blank][:width] for tokens in row] + [blank] * (n_alt - len(row)) for row in rows])


def _listed(answer: Answer | Sequence[Answer]) -> Sequence[Answer]:
    listed = [answer] if isinstance(answer, (str, int)) else list(answer)
    if not listed:
        raise ConfigError("A prompt has no answer", got="an empty list")
    return listed
