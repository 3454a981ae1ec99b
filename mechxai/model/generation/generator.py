"""What methods that read texts ask of a model: to write on, and how probable it holds each of some answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from mechxai.core.errors import ConfigError


@dataclass(frozen=True)
class Writing:
    """How a text is continued.

    Attributes:
        max_tokens: at most so many.
        temperature: 0 takes the likeliest token each time; above, tokens are drawn.
        stop: texts before which writing ends.
        seed: of the draws. A prompt's text depends on it and on the prompt, not on the prompts beside it.
    """

    max_tokens: int = 128
    temperature: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.temperature < 0:
            raise ConfigError(
                "Writing was asked",
                got=f"max_tokens={self.max_tokens}, temperature={self.temperature}",
                allowed="1 token or more, a temperature of 0 or more",
            )


class Written(NamedTuple):
    """What was written behind a prompt.

    Attributes:
        text: up to the first stop, which is left out.
        ended: whether it ended by itself or at a stop; else tokens ran out.
    """

    text: str
    ended: bool = True


@runtime_checkable
class Generator(Protocol):
    """A model that writes: `LocalGenerator` over a `HookedModel`, or `EndpointGenerator` over an endpoint."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def card(self) -> Mapping[str, Any]:
        """Of a bundled model, its card; else empty."""
        ...

    def info(self) -> dict[str, object]:
        """What a result records of it."""
        ...

    def spent(self) -> dict[str, float]:
        """What was asked of it so far: passes, or requests and tokens."""
        ...

    def write(self, prompts: Sequence[str], writing: Writing) -> list[Written]:
        """What it writes behind each prompt, up to the first of ``stop`` (left out)."""
        ...

    def fits(self, text: str, more: int = 0) -> bool:
        """Whether a text and so many tokens more are not too long for it, as far as is known."""
        ...

    def length(self, text: str) -> int:
        """How long a text is: in tokens, or in words where tokens are not known."""
        ...

    def scores(self, options: Sequence[str]) -> bool:
        """Whether it can say how probable each of these answers is, at a price worth paying."""
        ...

    def logprobs(self, prompts: Sequence[str], options: Sequence[str], end: str = "") -> Float[Tensor, "prompt option"]:
        """The log-probability of each answer behind each prompt; NaN for all of a prompt whose answer is none of them.

        Where one answer begins like another (2 and 29), ``end`` behind them tells them apart and is counted in.

        Raises:
            ModelSupportError: it gives none.
        """
        ...


def cut_at(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """A text up to the first of some others, spaces around those left aside; and whether one was there."""
    found = [place for one in stop if one and (place := text.find(one.strip() or one)) >= 0]
    return (text[: min(found)], True) if found else (text, False)
