"""A local model that writes: token by token with keys and values kept, many prompts together, each as if alone."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechxai.core.errors import AlignmentError, ModelSupportError, ShapeError
from mechxai.core.shapes import Tokens
from mechxai.model.generation.generator import Writing, Written, cut_at
from mechxai.model.hooked_model import HookedModel
from mechxai.model.text import padded

_TOKENS_AT_ONCE = {"cpu": 8192, "cuda": 131072}  # prompts and what is written behind them
Ids = tuple[int, ...]
_ALIKE = 32  # characters at a prompt's end that decide how an answer behind it is cut into tokens


@dataclass(frozen=True, eq=False)
class LocalGenerator:
    """Writes with a `HookedModel`. Rows of any length run together, position by position from the left, unpadded.

    While a row is still inside its prompt its next token is the prompt's, behind it the one that is drawn. The cache of
    keys and values is TransformerLens' own, on the bridge Hugging Face's. Each row draws from a generator of its own
    (seed and prompt), which is why Hugging Face's ``generate``, whose rows share one, is not used.
    """

    model: HookedModel
    _known: dict[tuple[str, tuple[str, ...]], "_Answers"] = field(default_factory=dict)
    _spent: dict[str, float] = field(default_factory=lambda: {"forward_passes": 0.0, "tokens_written": 0.0})

    def __post_init__(self) -> None:
        if not self.model.architecture.causal:
            raise ModelSupportError(
                f"Writing was asked of {self.model.name}", got="a bidirectional model", fix="use a causal one"
            )

    @property
    def name(self) -> str:
        """The model's."""
        return self.model.name

    @property
    def card(self) -> Mapping[str, Any]:
        """The model's."""
        return self.model.card

    def info(self) -> dict[str, object]:
        """The model's."""
        return self.model.info()

    def spent(self) -> dict[str, float]:
        """Passes of one prompt (a token written is one) and tokens written."""
        return dict(self._spent)

    def fits(self, text: str, more: int = 0) -> bool:
        """Whether a text and so many tokens more fit the context."""
        return self.length(text) + more <= self.model.architecture.n_ctx

    def length(self, text: str) -> int:
        """In tokens, one that begins every text with them."""
        return len(self.model.text.ids(text))

    def scores(self, options: Sequence[str]) -> bool:
        """Always: one pass reads them all."""
        return bool(options)

    # Writing ---------------------------------------------------------------------------------------------------------

    def write(self, prompts: Sequence[str], writing: Writing) -> list[Written]:
        """See `Generator`.

        Cost: a pass per prompt, one per token written, and one per token by which it is longer than the shortest beside
        it.

        Raises:
            ShapeError: a prompt that leaves no room in the model's context.
            AlignmentError: a word outside the vocabulary.
        """
        rows = [self._ids(prompt) for prompt in prompts]
        room = self.model.architecture.n_ctx
        for number, row in enumerate(rows):
            if len(row) >= room:
                raise ShapeError(
                    f"Prompt {number} was to be continued", got=f"{len(row)} tokens", allowed=f"fewer than {room}"
                )
        order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
        found = [Written("")] * len(rows)
        width = max(map(len, rows), default=1) + writing.max_tokens
        size = max(1, _TOKENS_AT_ONCE.get(self.model.device.type, 8192) // width)
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            for number, text in zip(chosen, self._whole([rows[one] for one in chosen], writing), strict=True):
                found[number] = text
        return found

    def _whole(self, rows: Sequence[list[int]], writing: Writing) -> list[Written]:
        """The texts behind these rows; where memory runs out, behind half of them at a time."""
        try:
            return self._written(rows, writing)
        except torch.cuda.OutOfMemoryError:
            if len(rows) == 1:
                raise
            torch.cuda.empty_cache()
            middle = len(rows) // 2
            return [*self._whole(rows[:middle], writing), *self._whole(rows[middle:], writing)]

    @torch.no_grad()
    def _written(self, rows: Sequence[list[int]], writing: Writing) -> list[Written]:
        drawing = _Drawing(rows, writing, self.model.device)
        n_ctx, special = self.model.architecture.n_ctx, self.model.text.special_ids()
        written: list[list[int]] = [[] for _ in rows]
        done: dict[int, Written] = {}
        first = min(map(len, rows))
        cache = self.model.backend.new_cache(len(rows))
        given = torch.tensor([row[:first] for row in rows], device=self.model.device)
        for position in range(first, n_ctx + 1):
            logits = self._step(given, cache, n_spent=len(rows) - len(done))
            ids = drawing(logits, [len(row) <= position and number not in done for number, row in enumerate(rows)])
            for number, row in enumerate(rows):
                if position < len(row):
                    ids[number] = row[position]
                elif number not in done:
                    text = self._ended(written[number], ids[number], writing=writing, special=special)
                    if text is not None or position == n_ctx:
                        whole = self.model.tokenizer.decode(written[number])
                        done[number] = text or Written(self._readable(whole, written[number], writing), ended=False)
            if len(done) == len(rows):
                break
            given = torch.tensor(ids, device=self.model.device)[:, None]
        return [done[number] for number in range(len(rows))]

    def _ids(self, prompt: str) -> list[int]:
        ids = self.model.text.ids(prompt)
        if self.model.text.unknown in ids:
            known = self.model.text.strings(ids)
            raise AlignmentError(
                f"{self.model.name} was asked {prompt!r}",
                got=f"words outside its vocabulary ({known[ids.index(self.model.text.unknown)]}): {' '.join(known)}",
                fix="other words: the task's, and those of its wording",
            )
        return ids

    def _step(self, given: Tokens, cache: Any, *, n_spent: int) -> Float[Tensor, "rows d_vocab"]:
        self._spent["forward_passes"] += n_spent
        with self.model.attached(()):
            return self.model.backend.run_cached(given, cache)[:, -1].float()

    def _ended(self, own: list[int], token: int, *, writing: Writing, special: frozenset[int]) -> Written | None:
        """The text of a row that ends with this token; None while it goes on."""
        if token not in special:
            own.append(token)
            self._spent["tokens_written"] += 1
        text, stopped = cut_at(self.model.tokenizer.decode(own), writing.stop)
        ended = stopped or token in special
        if not ended and len(own) < writing.max_tokens:
            return None
        return Written(self._readable(text, own, writing), ended)

    def _readable(self, text: str, own: list[int], writing: Writing) -> str:
        """A text that the model can read again: words apart where its tokenizer would make others of them ("?.")."""
        if self.model.text.unknown is None or self.model.text.unknown not in self.model.text.ids(text):
            return text
        return cut_at(" ".join(self.model.tokenizer.decode([token]).strip() for token in own), writing.stop)[0]

    # Answers ---------------------------------------------------------------------------------------------------------

    def logprobs(self, prompts: Sequence[str], options: Sequence[str], end: str = "") -> Float[Tensor, "prompt option"]:
        """See `Generator`; by teacher forcing, tokens of an answer summed.

        Cost: per prompt a pass, and one more for every beginning that answers of several tokens have.

        Raises:
            AlignmentError: an answer that merges with the end of a prompt, or a word outside the vocabulary.
        """
        rows = [self._ids(prompt) for prompt in prompts]
        answers = [self._answers(prompt, options, end) for prompt in prompts]
        asked = [(number, before) for number, own in enumerate(answers) for before in own.after]
        known: list[dict[Ids, dict[int, float]]] = [{} for _ in rows]
        for chosen, values in self._next([[*rows[number], *before] for number, before in asked]):
            for place, row in zip(chosen, values, strict=True):
                number, before = asked[place]
                tokens = answers[number].after[before]
                known[number][before] = dict(zip(tokens, row[tokens].tolist(), strict=True))
        found = [own.sums(values) for own, values in zip(answers, known, strict=True)]
        return torch.tensor(found, dtype=torch.float64).reshape(len(prompts), len(options))

    def _answers(self, prompt: str, options: Sequence[str], end: str) -> "_Answers":
        """The answers behind a prompt, with what ends them where one begins like another.

        Tokenized once for prompts that end alike.
        """
        key = (prompt[-_ALIKE:], (*options, end))
        if key not in self._known:
            found = _Answers([tuple(self.model.text.answer(prompt, option)) for option in options])
            if found.alike and end:
                found = _Answers([tuple(self.model.text.answer(prompt, option + end)) for option in options])
            self._known[key] = found
        return self._known[key]

    def _next(self, rows: Sequence[Sequence[int]]) -> Iterator[tuple[range, Float[Tensor, "row d_vocab"]]]:
        """Runs rows, some at a time.

        Yields:
            Which rows, and the log-probabilities of the token behind each, float64 on the CPU.
        """
        size = max(1, _TOKENS_AT_ONCE.get(self.model.device.type, 8192) // max(map(len, rows)))
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            self._spent["forward_passes"] += len(part)
            lengths = torch.tensor([len(row) for row in part], device=self.model.device)
            tokens = padded(part).to(self.model.device)
            logits = self.model.logits(tokens, lengths=lengths, at=lengths[:, None] - 1)
            yield range(start, start + len(part)), logits[:, 0].double().log_softmax(-1).cpu()


class _Answers:
    """Answers in tokens, and for all of their beginnings the tokens that may come next."""

    def __init__(self, answers: Sequence[Ids]) -> None:
        self._answers = answers
        self.after: dict[Ids, list[int]] = {}
        for own in answers:
            for at, token in enumerate(own):
                tokens = self.after.setdefault(own[:at], [])
                if token not in tokens:
                    tokens.append(token)

    @property
    def alike(self) -> bool:
        """Whether one answer begins like another."""
        return any(own in self.after for own in self._answers)

    def sums(self, values: Mapping[Ids, Mapping[int, float]]) -> list[float]:
        """Of each answer, the sum over its tokens of values by what stands before them."""
        return [sum(values[own[:at]][token] for at, token in enumerate(own)) for own in self._answers]


class _Drawing:
    """Draws the next token of each row, by one number of its own generator each time."""

    def __init__(self, rows: Sequence[list[int]], writing: Writing, device: torch.device) -> None:
        self._temperature, self._device = writing.temperature, device
        self._generators = [torch.Generator().manual_seed(_seed(writing.seed, row)) for row in rows]

    def __call__(self, logits: Float[Tensor, "rows d_vocab"], chosen: Sequence[bool]) -> list[int]:
        """A token for each row; drawn for those that are chosen, of no meaning for others."""
        if self._temperature == 0:
            return logits.argmax(-1).tolist()
        draws = [
            float(torch.rand((), generator=own, dtype=torch.float64)) if now else 0.5
            for own, now in zip(self._generators, chosen, strict=True)
        ]
        summed = (logits.double() / self._temperature).softmax(-1).cumsum(-1)
        wanted = torch.tensor(draws, device=self._device, dtype=torch.float64)[:, None] * summed[:, -1:]
        found: Int[Tensor, "rows one"] = torch.searchsorted(summed, wanted, right=True)
        return found.clamp(max=logits.shape[1] - 1)[:, 0].tolist()


def _seed(seed: int, row: Sequence[int]) -> int:
    digest = hashlib.blake2b(repr((seed, list(row))).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % 2**63
