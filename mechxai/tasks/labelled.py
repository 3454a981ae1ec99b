"""Labelled prompts for probes: ``(model, n, seed, **its own) -> ProbeDataset``, from the tasks' own grammars."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from mechxai.core.errors import ConfigError
from mechxai.core.probe_dataset import ProbeDataset
from mechxai.model.hooked_model import HookedModel
from mechxai.tasks import annotated, grammars
from mechxai.tasks.build import check_split, from_examples
from mechxai.tasks.drawn import Drawn, draw_labelled, in_turn

_NUMBERS = ("singular", "plural")


def pos_tags(
    model: HookedModel, n: int = 256, seed: int = 0, *, sources: Sequence[str] = annotated.SOURCES
) -> ProbeDataset:
    """Part of speech of every word (Universal Dependencies' tags), at its last token; grouped by frame or noun.

    Args:
        model: decides the tokens.
        n: prompts.
        seed: of the draw.
        sources: the grammars to draw from, in turn: ioi, greater_than, sva, facts.
    """
    return _by_word(model, "pos_tags", "pos", n=n, seed=seed, sources=sources)


def syntactic_role(
    model: HookedModel, n: int = 256, seed: int = 0, *, sources: Sequence[str] = annotated.SOURCES
) -> ProbeDataset:
    """Dependency relation of every word to its head (nsubj, obj, obl ...), at its last token; grouped by frame or noun.

    Args:
        model: decides the tokens.
        n: prompts.
        seed: of the draw.
        sources: the grammars to draw from, in turn: ioi, greater_than, sva, facts.
    """
    return _by_word(model, "syntactic_role", "relation", n=n, seed=seed, sources=sources)


def subject_number(
    model: HookedModel, n: int = 256, seed: int = 0, *, attractors: int = 1, split: str = "all"
) -> ProbeDataset:
    """Whether the subject is singular or plural, in the prompts of `sva`; grouped by the subject's noun.

    Carries the behaviour: the verb that agrees, against the one that does not. Roles SUBJECT, END.

    Args:
        model: decides the tokens.
        n: prompts.
        seed: of the draw.
        attractors: nouns between the subject and the end, at least; 0 to 2.
        split: ``all``, ``train`` or ``held_out`` words, as the bundled models know them.
    """
    if not 0 <= attractors <= 2:
        raise ConfigError(f"subject_number: attractors={attractors} was asked", allowed="0 to 2")
    check_split("subject_number", split)

    def draw(rng: random.Random, turn: int) -> Drawn:
        while True:  # as many of each number
            example = grammars.sva(rng, split)
            low, high = example.spans["SUBJECT"]
            noun = example.clean[low:high]
            number = int(noun.endswith("s"))
            if number == turn % 2 and int(example.template.split()[0]) >= attractors:
                return Drawn("sva", example, _NUMBERS[number], noun.removesuffix("s"))

    made = _by_prompt(
        model,
        draw,
        n=n,
        info={"name": "subject_number", "n": n, "seed": seed, "attractors": attractors, "split": split},
    )
    return replace(made, labelled_at="END")


def fact_relation(model: HookedModel, n: int = 256, seed: int = 0) -> ProbeDataset:
    """What a fact asks for: a capital, a landmark's city or a language; grouped by subject. Carries the behaviour."""
    relations = ("capital", "landmark", "language")

    def draw(rng: random.Random, turn: int) -> Drawn:
        relation = relations[turn % len(relations)]
        example = grammars.facts(rng, relation=relation)
        low, high = example.spans["SUBJECT"]
        return Drawn("facts", example, relation, example.clean[low:high])

    made = _by_prompt(model, draw, n=n, info={"name": "fact_relation", "n": n, "seed": seed})
    return replace(made, labelled_at="END")


def sentence_source(
    model: HookedModel, n: int = 256, seed: int = 0, *, sources: Sequence[str] = annotated.SOURCES
) -> ProbeDataset:
    """Which task's grammar a prompt is of; grouped by frame or noun.

    Args:
        model: decides the tokens.
        n: prompts.
        seed: of the draw.
        sources: the grammars to draw from, in turn.
    """
    draw = in_turn("sentence_source", sources)
    info = {"name": "sentence_source", "n": n, "seed": seed, "sources": list(sources)}
    return replace(_by_prompt(model, draw, n=n, info=info, behaviour=False), labelled_at="END")


def _by_word(model: HookedModel, name: str, which: str, *, n: int, seed: int, sources: Sequence[str]) -> ProbeDataset:
    drawn, dropped = draw_labelled(model, name, in_turn(name, sources), n=n, seed=seed)
    texts = [one.example.clean for one in drawn]
    labels = [[getattr(word, which) for word in annotated.annotation(one.source, one.example)] for one in drawn]
    spans = [annotated.word_spans(text) for text in texts]
    made = ProbeDataset.from_spans(model, texts, spans, labels, groups=tuple(one.group for one in drawn))
    info = {"name": name, "n": n, "seed": seed, "sources": list(sources), "dropped": dropped}
    return replace(made, info=info)


def _by_prompt(
    model: HookedModel,
    draw: Callable[[random.Random, int], Drawn],
    *,
    n: int,
    info: Mapping[str, object],
    behaviour: bool = True,
) -> ProbeDataset:
    drawn, dropped = draw_labelled(model, str(info["name"]), draw, n=n, seed=int(str(info["seed"])))
    batch = from_examples(model, [one.example for one in drawn], {**info, "dropped": dropped})
    names = tuple(dict.fromkeys(one.label for one in drawn))
    return ProbeDataset(
        batch.clean,
        batch.lengths,
        torch.tensor([names.index(one.label) for one in drawn], device=model.device),
        names,
        tuple(one.group for one in drawn),
        roles=batch.roles,
        behaviour=batch if behaviour else None,
        axis=batch.axis,
        strings=batch.strings,
        info=batch.info,
    )
