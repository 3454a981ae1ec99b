"""A generator that saves every answer to disk as it comes, so that an interrupted run resumes."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.cached import cached_property
from mechxai.core.pieces import JsonLines
from mechxai.model.generation.generator import Generator, Writing, Written

_PROMPTS_PER_SAVE = 64


@dataclass(frozen=True, eq=False)
class CachedGenerator:
    """Another generator, called a few prompts at a time; its answers are saved, a line each, before the next call.

    Attributes:
        inner: the generator.
        file: the file of answers; a line that is damaged or cut short by a crash is generated again.
        advance: called with the number of prompts that were finished.
    """

    inner: Generator
    file: Path | None = None
    advance: Callable[[int], None] = lambda _: None

    @cached_property
    def _answers(self) -> JsonLines:
        """Answers by the hash of model, prompt and settings."""
        return JsonLines(self.file)

    @property
    def name(self) -> str:
        """The name of the inner generator."""
        return self.inner.name

    @property
    def card(self) -> Mapping[str, Any]:
        """The card of the inner generator."""
        return self.inner.card

    def info(self) -> dict[str, object]:
        """The facts that the inner generator records with a result."""
        return self.inner.info()

    def spent(self) -> dict[str, float]:
        """The costs of the inner generator; answers from disk cost nothing."""
        return self.inner.spent()

    def fits(self, text: str, more: int = 0) -> bool:
        """Whether a text and ``more`` further tokens fit into the inner generator's context."""
        return self.inner.fits(text, more)

    def length(self, text: str) -> int:
        """The length of a text as the inner generator counts it."""
        return self.inner.length(text)

    def scores(self, options: Sequence[str]) -> bool:
        """Whether the inner generator gives log-probabilities of these options."""
        return self.inner.scores(options)

    def write(self, prompts: Sequence[str], writing: Writing) -> list[Written]:
        """The continuation of each prompt; equal prompts are generated once."""
        write: Callable[[Sequence[str]], list[Any]] = lambda part: self.inner.write(part, writing)  # noqa: E731
        return [Written(*answer) for answer in self._cached(prompts, asdict(writing), write)]

    def logprobs(self, prompts: Sequence[str], options: Sequence[str], end: str = "") -> Float[Tensor, "prompt option"]:
        """The log-probability of each option after each prompt; equal prompts are scored once."""
        score: Callable[[Sequence[str]], list[Any]] = lambda part: self.inner.logprobs(part, options, end).tolist()  # noqa: E731
        rows = self._cached(prompts, {"options": list(options), "end": end}, score)
        return torch.tensor(rows, dtype=torch.float64).reshape(len(prompts), len(options))

    def _cached(
        self, prompts: Sequence[str], settings: Mapping[str, object], compute: Callable[[Sequence[str]], list[Any]]
    ) -> list[Any]:
        """The answer to each prompt: from disk, or computed and saved."""
        key = {prompt: self._key(prompt, settings) for prompt in prompts}
        missing = [prompt for prompt in key if key[prompt] not in self._answers]
        self.advance(len(key) - len(missing))
        for start in range(0, len(missing), _PROMPTS_PER_SAVE):
            part = missing[start : start + _PROMPTS_PER_SAVE]
            self._answers.save(dict(zip((key[prompt] for prompt in part), compute(part), strict=True)))
            self.advance(len(part))
        return [self._answers[key[prompt]] for prompt in prompts]

    def _key(self, prompt: str, settings: Mapping[str, object]) -> str:
        model = {name: value for name, value in self.info().items() if name not in ("device", "comparison")}
        content = json.dumps([model, prompt, settings], sort_keys=True, default=str)
        return hashlib.blake2b(content.encode(), digest_size=12).hexdigest()
