"""Batches from text examples: clean and corrupted of equal length, single-token answers, rejected examples counted."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import get_args

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import AlignmentError, ShapeError, check_choice
from mechxai.model.hooked_model import HookedModel
from mechxai.model.text import TextCodec
from mechxai.tasks.example import Example, Split
from mechxai.tasks.fitting import DrawRequest, fitting_examples


def build(
    model: HookedModel, name: str, draw: Callable[[random.Random], Example], *, n: int, seed: int, **settings: object
) -> ContrastBatch:
    """A batch of ``n`` examples that fit a model's tokenizer.

    Args:
        model: the model whose tokenizer decides which examples fit.
        name: of the task.
        draw: draws one example.
        n: number of prompts.
        seed: of the draws; the same name, n and seed give the same batch.
        settings: the task's settings, recorded in ``batch.info``.

    Returns:
        The batch; ``batch.info["dropped"]`` counts the rejected examples by reason.

    Raises:
        ConfigError: ``n`` below 1, or an unknown split.
        AlignmentError: too few examples fit the tokenizer; the message gives the reasons.
    """
    check_choice("split", settings.get("split", "all"), get_args(Split))
    request = DrawRequest(name, n, seed, model.name, "mx.ContrastBatch.from_prompts")
    examples, dropped = fitting_examples(request, lambda rng, _: draw(rng), partial(misfit, model))
    info = {"name": name, "n": n, "seed": seed, **settings, "dropped": dropped}
    return from_examples(model, examples, info)


def from_examples(model: HookedModel, examples: Sequence[Example], info: dict[str, object]) -> ContrastBatch:
    """The batch of some examples, all of which fit the tokenizer."""
    batch = model.contrast(
        [example.clean for example in examples],
        [example.corrupted for example in examples],
        [example.answers for example in examples],
        [example.wrong for example in examples],
        roles=[example.spans for example in examples],
    )
    return replace(batch, groups=tuple(example.template for example in examples), info=info)


def misfit(model: HookedModel, example: Example, *, sequences: bool = False) -> str | None:
    """The reason why an example does not fit a model, or None; ``sequences`` allows answers of several tokens."""
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
        answers = [codec.answer(example.clean, answer) for answer in (*example.answers, *example.wrong)]
    except (AlignmentError, ShapeError):
        return "the answer merges with the prompt's tokens"
    if not sequences and any(len(tokens) > 1 for tokens in answers):
        return "an answer of several tokens"
    if any(codec.unknown in tokens for tokens in answers):
        return "an answer outside the vocabulary"
    return None
