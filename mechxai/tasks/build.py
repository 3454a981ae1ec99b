"""From text examples to a batch for one model: same token counts, answers of one token, nothing dropped in silence."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import AlignmentError, ConfigError, ShapeError, nearest
from mechxai.model.hooked_model import HookedModel
from mechxai.model.text import TextCodec
from mechxai.tasks.example import Example, known_split

_TRIES_PER_PROMPT = 20


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
    instead = "mx.ContrastBatch.from_prompts"
    found, dropped = fitting(model, name, lambda rng, _: draw(rng), n=n, seed=seed, instead=instead)
    info = {"name": name, "n": n, "seed": seed, **settings, "dropped": dropped}
    return from_examples(model, found, info)


def fitting(
    model: HookedModel,
    name: str,
    draw: Callable[[random.Random, int], Example],
    *,
    n: int,
    seed: int,
    instead: str,
) -> tuple[list[Example], dict[str, int]]:
    """``n`` examples that fit a model's tokenizer, and how many did not, by reason.

    Args:
        model: the model.
        name: of the task; with the seed it decides the draws.
        draw: makes the example of a turn, from 0 to ``n - 1``; asked again for the same turn when one does not fit.
        n: how many.
        seed: of the draws.
        instead: what to use where too few fit.

    Raises:
        ConfigError: fewer than one prompt asked.
        AlignmentError: too few examples fit; says why.
    """
    if n < 1:
        raise ConfigError(f"{name}: n={n} prompts were asked", allowed="1 or more")
    rng, found, dropped = random.Random(f"{name}/{seed}"), list[Example](), Counter[str]()
    for _ in range(n * _TRIES_PER_PROMPT):
        example = draw(rng, len(found))
        reason = misfit(model, example)
        if reason:
            dropped[reason] += 1
        else:
            found.append(example)
        if len(found) == n:
            return found, dict(dropped)
    raise AlignmentError(
        f"{name}: {n} prompts were asked for {model.name}",
        got=f"{len(found)} fit its tokenizer; dropped: {dict(dropped)}",
        fix=f"ask for fewer, or use {instead} with your own",
    )


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
