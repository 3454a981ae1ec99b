"""The `Generator` protocol: continuations of prompts, and log-probabilities of answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from mechxai.core.errors import ConfigError


@dataclass(frozen=True)
class Writing:
    """Settings of a continuation.

    Attributes:
        max_tokens: the most tokens to write.
        temperature: 0 takes the likeliest token each time; above 0, tokens are drawn.
        stop: texts that end a continuation; they are left out of it.
        seed: of the draws. A continuation depends on the seed and its prompt, not on other prompts.
    """

    max_tokens: int = 128
    temperature: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens is {self.max_tokens}: it must be at least 1")
        if self.temperature < 0:
            raise ConfigError(f"temperature is {self.temperature}: it must be at least 0")


class Written(NamedTuple):
    """The continuation of a prompt.

    Attributes:
        text: up to the first stop text, which is left out.
        ended: whether it ended by itself or at a stop text; otherwise it reached the most tokens.
    """

    text: str
    ended: bool = True


@runtime_checkable
class Generator(Protocol):
    """A model that continues texts: `LocalGenerator` over a `HookedModel`, or `EndpointGenerator` over an endpoint."""

    @property
    def name(self) -> str:
        """The model's name."""
        ...

    @property
    def card(self) -> Mapping[str, Any]:
        """The card of a bundled model; empty for others."""
        ...

    def info(self) -> dict[str, object]:
        """The description of the model that results record."""
        ...

    def spent(self) -> dict[str, float]:
        """The cost so far: forward passes, or requests and tokens."""
        ...

    def write(self, prompts: Sequence[str], writing: Writing) -> list[Written]:
        """The continuation of each prompt, up to the first stop text."""
        ...

    def fits(self, text: str, more: int = 0) -> bool:
        """Whether a text and ``more`` tokens fit the context; True where the context length is unknown."""
        ...

    def length(self, text: str) -> int:
        """The length of a text in tokens, or in words where the tokenizer is unknown."""
        ...

    def scores(self, options: Sequence[str]) -> bool:
        """Whether `logprobs` of these answers is available at a reasonable cost."""
        ...

    def logprobs(self, prompts: Sequence[str], options: Sequence[str], end: str = "") -> Float[Tensor, "prompt option"]:
        """The log-probability of each answer behind each prompt; NaN where they say nothing about a prompt's answer.

        Where one answer begins like another (2 and 29), ``end`` is appended to all; its tokens count.

        Raises:
            ModelSupportError: the model gives no log-probabilities.
        """
        ...


def cut_at(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The text up to the first stop text (without the spaces around it), and whether there was one."""
    places = [text.find(mark.strip() or mark) for mark in stop if mark]
    ends = [place for place in places if place >= 0]
    return (text[: min(ends)], True) if ends else (text, False)
