"""Examples of several grammars drawn in turn, each with its label and what may not be torn apart with it."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mechxai.core.errors import ConfigError, check_choice, nearest
from mechxai.model.hooked_model import HookedModel
from mechxai.tasks import annotated, grammars
from mechxai.tasks.build import misfit
from mechxai.tasks.example import Example
from mechxai.tasks.fitting import DrawRequest, fitting


@dataclass(frozen=True)
class Drawn:
    """An example, where it came from, and what may not be torn apart with it."""

    source: str
    example: Example
    label: str
    group: str


def draw_labelled(
    model: HookedModel, name: str, draw: Callable[[random.Random, int], Drawn], *, n: int, seed: int
) -> tuple[list[Drawn], dict[str, int]]:
    """``n`` examples that fit the model's tokenizer, the n-th of its turn's kind, and how many did not, by reason."""
    asked = DrawRequest(name, n, seed, model.name, "mx.ProbeDataset.from_texts")
    return fitting(asked, draw, lambda drawn: misfit(model, drawn.example))


def in_turn(name: str, sources: Sequence[str]) -> Callable[[random.Random, int], Drawn]:
    """What draws from one grammar after the other, the grammar as label.

    Raises:
        ConfigError: no sources, or one that has no annotation.
    """
    for source in sources:
        check_choice(f"{name}: source", source, annotated.SOURCES)
    if not sources:
        raise ConfigError(f"{name}: sources=[] was asked", allowed=nearest("", annotated.SOURCES))

    def draw(rng: random.Random, turn: int) -> Drawn:
        source = sources[turn % len(sources)]
        example = grammars.GRAMMARS[source](rng)
        return Drawn(source, example, source, f"{source}: {_item(source, example)}")

    return draw


def _item(source: str, example: Example) -> str:
    """What a probe could learn by heart of a prompt: its frame, or where there are few frames, the noun in it."""
    if source == "ioi":
        return example.template
    low, high = example.spans["NOUN" if source == "greater_than" else "SUBJECT"]
    return example.clean[low:high].removesuffix("s")
