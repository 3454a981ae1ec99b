"""A local model that continues texts and scores answers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.display import Displayed, Summary
from mechxai.model.generation.decoding import Decoder, rows_at_once
from mechxai.model.generation.generator import Writing, Written
from mechxai.model.hooked_model import HookedModel
from mechxai.model.text import padded

Ids = tuple[int, ...]
_SAME_END = 32  # characters at a prompt's end that decide how an answer behind it is cut into tokens


@dataclass(frozen=True, eq=False, repr=False)
class LocalGenerator(Displayed):
    """Continues texts with a `HookedModel`, for methods that read what a model writes.

    Attributes:
        model: a causal model with a tokenizer.
        decoder: writes behind rows of tokens, and counts what that costs.
    """

    model: HookedModel
    decoder: Decoder = field(init=False, repr=False)
    _answer_tokens: dict[tuple[str, tuple[str, ...]], "_Answers"] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        decoder = Decoder(self.model.name, self.model.backend, self.model.text, self.model.device)
        object.__setattr__(self, "decoder", decoder)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def card(self) -> Mapping[str, Any]:
        """The model's card; empty for a model that is not bundled."""
        return self.model.card

    def info(self) -> dict[str, object]:
        """What a result records of the model."""
        return self.model.info()

    def summary(self) -> Summary:
        """The model's summary."""
        return Summary(f"LocalGenerator {self.name}", self.model.summary().rows)

    def spent(self) -> dict[str, float]:
        """Forward passes of one prompt (a token written is one) and tokens written so far."""
        return dict(self.decoder.counts)

    def fits(self, text: str, more: int = 0) -> bool:
        """Whether a text and ``more`` tokens behind it fit the model's context."""
        return self.length(text) + more <= self.model.architecture.n_ctx

    def length(self, text: str) -> int:
        """The number of tokens of a text, the beginning-of-sequence token included."""
        return len(self.model.text.ids(text))

    def scores(self, options: Sequence[str]) -> bool:
        """Whether `logprobs` is worth its cost: always, as one pass scores all options of one token."""
        return bool(options)

    def write(self, prompts: Sequence[str], writing: Writing) -> list[Written]:
        """The continuation of each prompt; see `Generator`.

        Cost: a pass per prompt, one per token written, and one per token by which a prompt is longer than the shortest
        beside it.

        Raises:
            ShapeError: a prompt that leaves no room in the model's context.
            AlignmentError: a word outside the vocabulary.
        """
        rows = [self.decoder.prompt_ids(prompt) for prompt in prompts]
        return [continuation.written for continuation in self.decoder.continuations(rows, writing)]

    def logprobs(self, prompts: Sequence[str], options: Sequence[str], end: str = "") -> Float[Tensor, "prompt option"]:
        """The log-probability of each answer behind each prompt, by teacher forcing; see `Generator`.

        The log-probabilities of an answer's tokens are summed.

        Cost: per prompt a pass, and one more for every beginning that answers of several tokens have.

        Raises:
            AlignmentError: an answer that merges with the end of a prompt, or a word outside the vocabulary.
        """
        rows = [self.decoder.prompt_ids(prompt) for prompt in prompts]
        answers = [self._answers(prompt, options, end) for prompt in prompts]
        runs = [(number, prefix) for number, answer in enumerate(answers) for prefix in answer.next_tokens]
        values: list[dict[Ids, dict[int, float]]] = [{} for _ in rows]
        for numbers, logprobs in self._next_logprobs([[*rows[number], *prefix] for number, prefix in runs]):
            for run, row in zip(numbers, logprobs, strict=True):
                number, prefix = runs[run]
                tokens = answers[number].next_tokens[prefix]
                values[number][prefix] = dict(zip(tokens, row[tokens].tolist(), strict=True))
        sums = [answer.sums(row) for answer, row in zip(answers, values, strict=True)]
        return torch.tensor(sums, dtype=torch.float64).reshape(len(prompts), len(options))

    def _answers(self, prompt: str, options: Sequence[str], end: str) -> "_Answers":
        """The answers' tokens behind a prompt, with ``end`` where one answer begins like another.

        Tokenized once for prompts with the same end.
        """
        key = (prompt[-_SAME_END:], (*options, end))
        if key not in self._answer_tokens:
            answers = _Answers([tuple(self.model.text.answer(prompt, option)) for option in options])
            if answers.share_prefixes and end:
                answers = _Answers([tuple(self.model.text.answer(prompt, option + end)) for option in options])
            self._answer_tokens[key] = answers
        return self._answer_tokens[key]

    def _next_logprobs(self, rows: Sequence[Sequence[int]]) -> Iterator[tuple[range, Float[Tensor, "row d_vocab"]]]:
        """Runs rows of tokens, some at a time.

        Yields:
            The rows' numbers, and the log-probabilities of the token behind each, float64 on the CPU.
        """
        size = rows_at_once(max(map(len, rows)), self.model.device)
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            self.decoder.counts["forward_passes"] += len(part)
            lengths = torch.tensor([len(row) for row in part], device=self.model.device)
            tokens = padded(part).to(self.model.device)
            logits = self.model.logits(tokens, lengths=lengths, at=lengths[:, None] - 1)
            yield range(start, start + len(part)), logits[:, 0].double().log_softmax(-1).cpu()


class _Answers:
    """Answers in tokens, and for each of their prefixes the tokens that may come next."""

    def __init__(self, answers: Sequence[Ids]) -> None:
        self._answers = answers
        self.next_tokens: dict[Ids, list[int]] = {}
        for answer in answers:
            for at, token in enumerate(answer):
                tokens = self.next_tokens.setdefault(answer[:at], [])
                if token not in tokens:
                    tokens.append(token)

    @property
    def share_prefixes(self) -> bool:
        """Whether one answer begins like another."""
        return any(answer in self.next_tokens for answer in self._answers)

    def sums(self, values: Mapping[Ids, Mapping[int, float]]) -> list[float]:
        """The sum over each answer's tokens of the values behind their prefixes."""
        return [sum(values[answer[:at]][token] for at, token in enumerate(answer)) for answer in self._answers]
