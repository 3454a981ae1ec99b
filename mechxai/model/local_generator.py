"""A local model that writes: token by token with keys and values kept, many prompts together, each as if alone."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechxai.core.errors import AlignmentError, ModelSupportError, ShapeError
from mechxai.core.shapes import Tokens
from mechxai.model.generator import Writing, cut_at
from mechxai.model.hooked_model import HookedModel
from mechxai.model.text import padded

_TOKENS_AT_ONCE = {"cpu": 8192, "cuda": 131072}  # prompts and what is written behind them
_ALIKE = 32  # characters at a prompt's end that decide how an answer behind it is cut into tokens


@dataclass(frozen=True, eq=False)
class LocalGenerator:
    """Writes with a `HookedModel`. Rows of any length run together, position by position from the left, unpadded.

    While a row is still inside its prompt its next token is the prompt's, behind it the one that is drawn. The cache of
    keys and values is TransformerLens' own, on the bridge Hugging Face's. Each row draws from a generator of its own
    (seed and prompt), which is why Hugging Face's ``generate``, whose rows share one, is not used.
    """

    model: HookedModel
    _known: dict[tuple[str, tuple[str, ...]], list[list[int]]] = field(default_factory=dict)
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

    def fits(self, prompt: str) -> bool:
        """Whether a token more still fits the context."""
        return len(self.model.text.ids(prompt)) < self.model.architecture.n_ctx

    def scores(self, options: Sequence[str]) -> bool:
        """Always: one pass reads them all."""
        return bool(options)

    # Writing ---------------------------------------------------------------------------------------------------------

    def write(self, prompts: Sequence[str], writing: Writing) -> list[str]:
        """See `Generator`. Cost: a pass per prompt and one per token written.

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
        found = [""] * len(rows)
        width = max(map(len, rows), default=1) + writing.max_tokens
        size = max(1, _TOKENS_AT_ONCE.get(self.model.device.type, 8192) // width)
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            for number, text in zip(chosen, self._whole([rows[one] for one in chosen], writing), strict=True):
                found[number] = text
        return found

    def _whole(self, rows: Sequence[list[int]], writing: Writing) -> list[str]:
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
    def _written(self, rows: Sequence[list[int]], writing: Writing) -> list[str]:
        drawing = _Drawing(rows, writing, self.model.device)
        n_ctx, special = self.model.architecture.n_ctx, self.model.text.special_ids()
        written: list[list[int]] = [[] for _ in rows]
        done: dict[int, str] = {}
        first = min(map(len, rows))
        cache = self.model.backend.new_cache(len(rows))
        given = torch.tensor([row[:first] for row in rows], device=self.model.device)
        for position in range(first, n_ctx + 1):
            logits = self._step(given, cache)
            ids = drawing(logits, [len(row) <= position and number not in done for number, row in enumerate(rows)])
            for number, row in enumerate(rows):
                if position < len(row):
                    ids[number] = row[position]
                elif number not in done:
                    text = self._ended(written[number], ids[number], writing=writing, special=special)
                    if text is not None or position == n_ctx:
                        done[number] = self.model.tokenizer.decode(written[number]) if text is None else text
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

    def _step(self, given: Tokens, cache: Any) -> Float[Tensor, "rows d_vocab"]:
        self._spent["forward_passes"] += len(given)
        with self.model.attached(()):
            return self.model.backend.run_cached(given, cache)[:, -1].float()

    def _ended(self, own: list[int], token: int, *, writing: Writing, special: frozenset[int]) -> str | None:
        """The text of a row that ends with this token; None while it goes on."""
        if token not in special:
            own.append(token)
            self._spent["tokens_written"] += 1
        text, stopped = cut_at(self.model.tokenizer.decode(own), writing.stop)
        return text if stopped or token in special or len(own) >= writing.max_tokens else None

    # Answers ---------------------------------------------------------------------------------------------------------

    def logprobs(self, prompts: Sequence[str], options: Sequence[str]) -> Float[Tensor, "prompt option"]:
        """See `Generator`; by teacher forcing, tokens of an answer summed.

        Cost: a pass per prompt, and one more per answer of several tokens.

        Raises:
            AlignmentError: an answer that merges with the end of a prompt, or a word outside the vocabulary.
        """
        found = torch.empty(len(prompts), len(options), dtype=torch.float64)
        width = max(len(self.model.text.ids(prompt)) for prompt in prompts)
        size = max(1, _TOKENS_AT_ONCE.get(self.model.device.type, 8192) // width)
        for start in range(0, len(prompts), size):
            part = prompts[start : start + size]
            found[start : start + size] = self._of_answers(part, options)
        return found

    def _of_answers(self, prompts: Sequence[str], options: Sequence[str]) -> Float[Tensor, "prompt option"]:
        answers = [self._tokens(prompt, options) for prompt in prompts]
        rows = [self._ids(prompt) for prompt in prompts]
        first = self._next(rows)
        heads = torch.tensor([[own[0] for own in of_prompt] for of_prompt in answers])
        found = first.gather(1, heads)
        longer = [
            (number, choice)
            for number, of_prompt in enumerate(answers)
            for choice, own in enumerate(of_prompt)
            if len(own) > 1
        ]
        for number, choice in longer:  # rare: answers are a token where tasks can have it so
            own = answers[number][choice]
            for at in range(1, len(own)):
                found[number, choice] += self._next([[*rows[number], *own[:at]]])[0, own[at]]
        return found

    def _tokens(self, prompt: str, options: Sequence[str]) -> list[list[int]]:
        """The tokens of each answer behind a prompt; tokenized once for prompts that end alike."""
        key = (prompt[-_ALIKE:], tuple(options))
        if key not in self._known:
            self._known[key] = [self.model.text.answer(prompt, option) for option in options]
        return self._known[key]

    def _next(self, rows: Sequence[Sequence[int]]) -> Float[Tensor, "row d_vocab"]:
        """Log-probabilities of the token behind each row, float64 on the CPU."""
        self._spent["forward_passes"] += len(rows)
        lengths = torch.tensor([len(row) for row in rows], device=self.model.device)
        tokens = padded(rows).to(self.model.device)
        logits = self.model.logits(tokens, lengths=lengths, at=lengths[:, None] - 1)
        return logits[:, 0].double().log_softmax(-1).cpu()


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
