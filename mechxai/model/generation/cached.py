"""A generator that saves every answer to disk as it comes, so that an interrupted run resumes."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.cached import cached_property
from mechxai.core.pieces import JsonLines
from mechxai.core.work_clock import add_earlier_work, work_seconds
from mechxai.model.generation.generator import Generator, Writing, Written

_PROMPTS_PER_SAVE = 64
_SECONDS = "seconds"


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
        """Request, answer, cost and seconds, by the hash of the request: model, prompt and settings."""
        return JsonLines(self.file)

    @cached_property
    def _here(self) -> set[str]:
        """The hashes of the requests that this process has answered."""
        return set()

    @cached_property
    def _earlier(self) -> dict[str, Mapping[str, float]]:
        """The cost of every answer that this process has read from disk, by the hash of its request."""
        return {}

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
        """The costs of the inner generator, and of the answers from disk when they were generated."""
        total = dict(self.inner.spent())
        for cost in self._earlier.values():
            for name, value in cost.items():
                total[name] = total.get(name, 0.0) + value
        return total

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
        model = {name: value for name, value in self.info().items() if name not in ("device", "comparison")}
        request = {
            prompt: json.dumps([model, prompt, settings], sort_keys=True, default=str)
            for prompt in dict.fromkeys(prompts)
        }
        key = {prompt: hashlib.blake2b(text.encode(), digest_size=12).hexdigest() for prompt, text in request.items()}
        missing = [prompt for prompt in key if not self._holds(key[prompt], request[prompt])]
        self._count_earlier({key[prompt] for prompt in key} - {key[prompt] for prompt in missing})
        self.advance(len(key) - len(missing))
        for start in range(0, len(missing), _PROMPTS_PER_SAVE):
            part = missing[start : start + _PROMPTS_PER_SAVE]
            before, started = self.inner.spent(), work_seconds()
            answers = compute(part)
            share = {name: (value - before.get(name, 0.0)) / len(part) for name, value in self.inner.spent().items()}
            share[_SECONDS] = (work_seconds() - started) / len(part)
            rows = zip(part, answers, strict=True)
            self._answers.save({key[prompt]: [request[prompt], answer, share] for prompt, answer in rows})
            self._here.update(key[prompt] for prompt in part)
            self.advance(len(part))
        return [self._answers[key[prompt]][1] for prompt in prompts]

    def _holds(self, key: str, request: str) -> bool:
        """Whether there is an answer to this very request."""
        return key in self._answers and self._answers[key][0] == request

    def _count_earlier(self, keys: Set[str]) -> None:
        """Counts the cost of answers that an earlier process generated, each once."""
        for key in keys - self._here - set(self._earlier):
            cost = dict(self._answers[key][2])
            add_earlier_work(cost.pop(_SECONDS))
            self._earlier[key] = cost
