"""Examples drawn from several grammars in turn, each with its label and its group for splits."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mechxai.core.errors import ConfigError, check_choice
from mechxai.model.hooked_model import HookedModel
from mechxai.tasks import grammars
from mechxai.tasks.annotated import SOURCES, AnnotatedGrammar
from mechxai.tasks.build import misfit
from mechxai.tasks.example import Example
from mechxai.tasks.fitting import DrawRequest, fitting_examples


@dataclass(frozen=True)
class Drawn:
    """An example with its grammar, its label and its group, which no split may divide."""

    source: AnnotatedGrammar
    example: Example
    label: str
    group: str


def draw_labelled(
    model: HookedModel, name: str, draw: Callable[[random.Random, int], Drawn], *, n: int, seed: int
) -> tuple[list[Drawn], dict[str, int]]:
    """``n`` labelled examples that fit the model's tokenizer, and the number of rejected ones by reason."""
    request = DrawRequest(name, n, seed, model.name, "mx.ProbeDataset.from_texts")
    return fitting_examples(request, draw, lambda drawn: misfit(model, drawn.example))


def in_turn(sources: Sequence[AnnotatedGrammar]) -> Callable[[random.Random, int], Drawn]:
    """A function that draws from one grammar after the other, with the grammar as label.

    Raises:
        ConfigError: no sources, or a grammar without annotations.
    """
    for source in sources:
        check_choice("sources", source, SOURCES)
    if not sources:
        raise ConfigError("sources is empty: name at least one grammar", allowed=SOURCES)

    def draw(rng: random.Random, turn: int) -> Drawn:
        source = sources[turn % len(sources)]
        example = grammars.GRAMMARS[source](rng)
        return Drawn(source, example, source, f"{source}: {_group(source, example)}")

    return draw


def _group(source: AnnotatedGrammar, example: Example) -> str:
    """The part of a prompt that a probe could memorise: its template, or for few templates the noun in it."""
    if source == "ioi":
        return example.template
    low, high = example.spans["NOUN" if source == "greater_than" else "SUBJECT"]
    return example.clean[low:high].removesuffix("s")
