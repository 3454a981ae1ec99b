"""From text examples to a batch for one model: same token counts, answers of one token, nothing dropped in silence."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import AlignmentError, ConfigError, ShapeError, nearest
from mechxai.model.hooked_model import HookedModel
from mechxai.model.text import TextCodec
from mechxai.tasks.example import Example, known_split
from mechxai.tasks.fitting import DrawRequest, fitting


def build(
    model: HookedModel, name: str, draw: Callable[[random.Random], Example], *, n: int, seed: int, **settings: object
) -> ContrastBatch:
    """``n`` examples that this model can be asked about.

    Args:
        model: its tokenizer decides which examples fit.
        name: of the task.
        draw: makes one example.
        n: prompts wanted.
        seed: the same name, n and seed give the same batch.
        settings: the task's own, recorded in ``batch.info``.

    Returns:
        The batch; ``batch.info["dropped"]`` counts the examples that did not fit, by reason.

    Raises:
        ConfigError: fewer than one prompt asked, or an unknown split.
        AlignmentError: too few examples fit this tokenizer; says why.
    """
    check_split(name, str(settings.get("split", "all")))
    asked = DrawRequest(name, n, seed, model.name, "mx.ContrastBatch.from_prompts")
    found, dropped = fitting(asked, lambda rng, _: draw(rng), partial(misfit, model))
    info = {"name": name, "n": n, "seed": seed, **settings, "dropped": dropped}
    return from_examples(model, found, info)


def check_split(name: str, split: str) -> None:
    """Refuses a split that is none of the three.

    Raises:
        ConfigError: names the closest one.
    """
    if not known_split(split):
        raise ConfigError(f"{name}: split={split!r} was asked", allowed=nearest(split, ("all", "train", "held_out")))


def from_examples(model: HookedModel, examples: Sequence[Example], info: dict[str, object]) -> ContrastBatch:
    """The batch of examples that all fit."""
    batch = model.contrast(
        [example.clean for example in examples],
        [example.corrupted for example in examples],
        [example.answers for example in examples],
        [example.wrong for example in examples],
        roles=[example.spans for example in examples],
    )
    return replace(batch, groups=tuple(example.template for example in examples), info=info)


def misfit(model: HookedModel, example: Example, *, sequences: bool = False) -> str | None:
    """Why an example does not fit a model, or None when it does.

    ``sequences`` allows answers of several tokens.
    """
    return _prompt_misfit(model, example) or _answer_misfit(model.text, example, sequences=sequences)


def _prompt_misfit(model: HookedModel, example: Example) -> str | None:
    clean, corrupted = model.text.ids(example.clean), model.text.ids(example.corrupted)
    if len(clean) != len(corrupted):
        return "clean and corrupted differ in length"
    if len(clean) > model.architecture.n_ctx:
        return "longer than the model's context"
    if model.text.unknown in (*clean, *corrupted):
        return "a word outside the vocabulary"
    return None


def _answer_misfit(codec: TextCodec, example: Example, *, sequences: bool) -> str | None:
    try:
        answers = [codec.answer(example.clean, one) for one in (*example.answers, *example.wrong)]
    except (AlignmentError, ShapeError):
        return "the answer merges with the prompt's tokens"
    if not sequences and any(len(tokens) > 1 for tokens in answers):
        return "an answer of several tokens"
    if any(codec.unknown in tokens for tokens in answers):
        return "an answer outside the vocabulary"
    return None
