"""A generator whose answers are kept on disk as they come, so that an interrupted run goes on where it was."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.model.generation.generator import Generator, Writing, Written

_AT_ONCE = 64  # prompts between two writes to disk


@dataclass(frozen=True, eq=False)
class CachedGenerator:
    """Asks another generator, a few prompts at a time, and writes down what it says, a line each, before going on.

    Attributes:
        inner: the generator.
        file: of answers; a line that was cut short by a crash is asked for again.
        advance: told how many prompts more are done.
    """

    inner: Generator
    file: Path | None = None
    advance: Callable[[int], None] = lambda _: None
    _known: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.file is not None and self.file.is_file():
            for line in self.file.read_text(encoding="utf-8", errors="replace").split("\n"):
                try:
                    key, said = json.loads(line)
                except (ValueError, TypeError):
                    continue
                if isinstance(key, str) and isinstance(said, list):
                    self._known[key] = said

    @property
    def name(self) -> str:
        """The generator's."""
        return self.inner.name

    @property
    def card(self) -> Mapping[str, Any]:
        """The generator's."""
        return self.inner.card

    def info(self) -> dict[str, object]:
        """The generator's."""
        return self.inner.info()

    def spent(self) -> dict[str, float]:
        """The generator's: what was found on disk cost nothing."""
        return self.inner.spent()

    def fits(self, text: str, more: int = 0) -> bool:
        """The generator's."""
        return self.inner.fits(text, more)

    def length(self, text: str) -> int:
        """The generator's."""
        return self.inner.length(text)

    def scores(self, options: Sequence[str]) -> bool:
        """The generator's."""
        return self.inner.scores(options)

    def write(self, prompts: Sequence[str], writing: Writing) -> list[Written]:
        """As the generator, once per prompt."""
        return [
            Written(*one) for one in self._all(prompts, asdict(writing), lambda part: self.inner.write(part, writing))
        ]

    def logprobs(self, prompts: Sequence[str], options: Sequence[str], end: str = "") -> Float[Tensor, "prompt option"]:
        """As the generator, once per prompt."""
        ask: Callable[[Sequence[str]], list[Any]] = lambda part: self.inner.logprobs(part, options, end).tolist()  # noqa: E731
        found = self._all(prompts, {"options": list(options), "end": end}, ask)
        return torch.tensor(found, dtype=torch.float64).reshape(len(prompts), len(options))

    def _all(
        self, prompts: Sequence[str], how: Mapping[str, object], ask: Callable[[Sequence[str]], list[Any]]
    ) -> list[Any]:
        key = {prompt: self._key(prompt, how) for prompt in prompts}
        missing = [prompt for prompt in key if key[prompt] not in self._known]
        self.advance(len(key) - len(missing))
        for start in range(0, len(missing), _AT_ONCE):
            part = missing[start : start + _AT_ONCE]
            said = dict(zip((key[prompt] for prompt in part), ask(part), strict=True))
            self._known.update(said)
            if self.file is not None:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                with self.file.open("a", encoding="utf-8") as out:
                    out.write("".join("\n" + json.dumps(pair) for pair in said.items()))
            self.advance(len(part))
        return [self._known[key[prompt]] for prompt in prompts]

    def _key(self, prompt: str, how: Mapping[str, object]) -> str:
        model = {name: value for name, value in self.info().items() if name != "device"}
        whole = json.dumps([model, prompt, how], sort_keys=True, default=str)
        return hashlib.blake2b(whole.encode(), digest_size=12).hexdigest()
