"""Labelled prompts for probes, from the grammars of the contrast tasks."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import get_args

import torch

from mechxai.core.errors import ConfigError, check_choice
from mechxai.core.probe_dataset import ProbeDataset
from mechxai.model.hooked_model import HookedModel
from mechxai.tasks import annotated, grammars
from mechxai.tasks.annotated import SOURCES, AnnotatedGrammar
from mechxai.tasks.build import from_examples
from mechxai.tasks.drawn import Drawn, draw_labelled, in_turn
from mechxai.tasks.example import Split

_NUMBERS = ("singular", "plural")


def pos_tags(
    model: HookedModel, n: int = 256, seed: int = 0, *, sources: Sequence[AnnotatedGrammar] = SOURCES
) -> ProbeDataset:
    """Part of speech of every word (Universal Dependencies tags), at its last token; grouped by template or noun.

    Args:
        model: the model whose tokenizer is used.
        n: number of prompts.
        seed: of the draws.
        sources: the grammars, which take turns: ioi, greater_than, sva, facts.
    """
    return _by_word(model, "pos_tags", "pos", n=n, seed=seed, sources=sources)


def syntactic_role(
    model: HookedModel, n: int = 256, seed: int = 0, *, sources: Sequence[AnnotatedGrammar] = SOURCES
) -> ProbeDataset:
    """Dependency relation of every word (nsubj, obj, obl ...), at its last token; grouped by template or noun.

    Args:
        model: the model whose tokenizer is used.
        n: number of prompts.
        seed: of the draws.
        sources: the grammars, which take turns: ioi, greater_than, sva, facts.
    """
    return _by_word(model, "syntactic_role", "relation", n=n, seed=seed, sources=sources)


def subject_number(
    model: HookedModel, n: int = 256, seed: int = 0, *, attractors: int = 1, split: Split = "all"
) -> ProbeDataset:
    """Number of the subject, singular or plural, in the prompts of `sva`; grouped by the subject's noun.

    The behaviour is the verb that agrees against the one that does not. Roles SUBJECT, END.

    Args:
        model: the model whose tokenizer is used.
        n: number of prompts.
        seed: of the draws.
        attractors: minimum number of nouns between the subject and the end; 0 to 2.
        split: ``all``, ``train`` or ``held_out`` words of the bundled models' training.
    """
    if not 0 <= attractors <= 2:
        raise ConfigError(f"subject_number: attractors={attractors}", allowed="0 to 2")
    check_choice("split", split, get_args(Split))

    def draw(rng: random.Random, turn: int) -> Drawn:
        while True:  # singular and plural alternate
            example = grammars.sva(rng, split)
            low, high = example.spans["SUBJECT"]
            noun = example.clean[low:high]
            number = int(noun.endswith("s"))
            if number == turn % 2 and int(example.template.split()[0]) >= attractors:
                return Drawn("sva", example, _NUMBERS[number], noun.removesuffix("s"))

    dataset = _by_prompt(
        model,
        draw,
        n=n,
        info={"name": "subject_number", "n": n, "seed": seed, "attractors": attractors, "split": split},
    )
    return replace(dataset, labelled_at="END")


def fact_relation(model: HookedModel, n: int = 256, seed: int = 0) -> ProbeDataset:
    """Relation of a fact: capital, landmark (its city) or language; grouped by subject. The behaviour is its answer."""
    relations = ("capital", "landmark", "language")

    def draw(rng: random.Random, turn: int) -> Drawn:
        relation = relations[turn % len(relations)]
        example = grammars.facts(rng, relation=relation)
        low, high = example.spans["SUBJECT"]
        return Drawn("facts", example, relation, example.clean[low:high])

    dataset = _by_prompt(model, draw, n=n, info={"name": "fact_relation", "n": n, "seed": seed})
    return replace(dataset, labelled_at="END")


def sentence_source(
    model: HookedModel, n: int = 256, seed: int = 0, *, sources: Sequence[AnnotatedGrammar] = SOURCES
) -> ProbeDataset:
    """The grammar that a prompt is drawn from; grouped by template or noun.

    Args:
        model: the model whose tokenizer is used.
        n: number of prompts.
        seed: of the draws.
        sources: the grammars, which take turns.
    """
    draw = in_turn(sources)
    info = {"name": "sentence_source", "n": n, "seed": seed, "sources": list(sources)}
    return replace(_by_prompt(model, draw, n=n, info=info, behaviour=False), labelled_at="END")


def _by_word(
    model: HookedModel, name: str, label: str, *, n: int, seed: int, sources: Sequence[AnnotatedGrammar]
) -> ProbeDataset:
    drawn, dropped = draw_labelled(model, name, in_turn(sources), n=n, seed=seed)
    texts = [row.example.clean for row in drawn]
    labels = [[getattr(word, label) for word in annotated.annotation(row.source, row.example)] for row in drawn]
    spans = [annotated.word_spans(text) for text in texts]
    dataset = ProbeDataset.from_spans(model, texts, spans, labels, groups=tuple(row.group for row in drawn))
    info = {"name": name, "n": n, "seed": seed, "sources": list(sources), "dropped": dropped}
    return replace(dataset, info=info)


def _by_prompt(
    model: HookedModel,
    draw: Callable[[random.Random, int], Drawn],
    *,
    n: int,
    info: Mapping[str, object],
    behaviour: bool = True,
) -> ProbeDataset:
    drawn, dropped = draw_labelled(model, str(info["name"]), draw, n=n, seed=int(str(info["seed"])))
    batch = from_examples(model, [row.example for row in drawn], {**info, "dropped": dropped})
    names = tuple(dict.fromkeys(row.label for row in drawn))
    return ProbeDataset(
        batch.clean,
        batch.lengths,
        torch.tensor([names.index(row.label) for row in drawn], device=model.device),
        names,
        tuple(row.group for row in drawn),
        roles=batch.roles,
        behaviour=batch if behaviour else None,
        axis=batch.axis,
        strings=batch.strings,
        info=batch.info,
    )
