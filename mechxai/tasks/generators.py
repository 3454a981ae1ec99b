"""Contrast tasks: IOI, greater-than, subject-verb agreement, docstrings, facts, induction."""

from dataclasses import replace
from functools import partial
from typing import get_args

import torch

from mechxai.core.batch import ContrastBatch
from mechxai.core.counts import check_n
from mechxai.core.errors import ConfigError, check_choice
from mechxai.model.hooked_model import HookedModel
from mechxai.tasks import grammars
from mechxai.tasks.build import build, from_examples, misfit
from mechxai.tasks.example import Example, Split


def ioi(  # noqa: PLR0913 - the signature of tasks
    model: HookedModel,
    n: int = 64,
    seed: int = 0,
    *,
    order: grammars.Order = "both",
    corruption: grammars.Corruption = "swap",
    split: Split = "all",
    template: int | None = None,
) -> ContrastBatch:
    """Indirect object identification: ``When Mary and John went to the store, John gave a drink to`` -> `` Mary``.

    Args:
        model: the model whose tokenizer is used.
        n: number of prompts.
        seed: of the draws.
        order: which name comes first: ``abba``, ``baba`` or ``both``.
        corruption: ``swap`` repeats the other name (the answer flips), ``abc`` names a third person (no name is
            repeated).
        split: ``all``, ``train`` or ``held_out`` names and templates of the bundled models' training.
        template: number of a single template, which aligns positions (``mechxai.tasks.grammars.IOI_TEMPLATES``); all
            templates by default.

    Returns:
        A batch with roles IO, S1, S2, END.

    Source: Wang et al. 2022, arXiv 2211.00593.
    """
    check_choice("order", order, get_args(grammars.Order))
    check_choice("corruption", corruption, get_args(grammars.Corruption))
    if template is not None and not 0 <= template < len(grammars.IOI_TEMPLATES):
        last = len(grammars.IOI_TEMPLATES) - 1
        raise ConfigError(f"ioi: template={template} does not exist", allowed=f"0 to {last}, or null for all templates")
    settings = {"order": order, "corruption": corruption, "split": split, "template": template}
    return build(model, "ioi", partial(grammars.ioi, **settings), n=n, seed=seed, **settings)


def greater_than(model: HookedModel, n: int = 64, seed: int = 0, *, split: Split = "all") -> ContrastBatch:
    """Greater-than: ``The war lasted from the year 1732 to the year 17`` -> any of 33 to 99; use ``metric=prob_diff``.

    Source: Hanna et al. 2023, arXiv 2305.00586. Roles NOUN, YEAR, END.
    """
    return build(model, "greater_than", partial(grammars.greater_than, split=split), n=n, seed=seed, split=split)


def sva(model: HookedModel, n: int = 64, seed: int = 0, *, split: Split = "all") -> ContrastBatch:
    """Subject-verb agreement across attractors: ``The keys near the cabinet`` -> `` are``. Roles SUBJECT, END.

    Source: Linzen et al. 2016, arXiv 1611.01368 (the phenomenon); the corrupted prompt flips the subject's number.
    """
    return build(model, "sva", partial(grammars.sva, split=split), n=n, seed=seed, split=split)


def docstring(model: HookedModel, n: int = 64, seed: int = 0, *, split: Split = "all") -> ContrastBatch:
    """Docstring completion: the next ``:param`` is the function's next argument. Roles ANSWER_DEF, PREVIOUS_DEF, END.

    Source: Heimersheim and Janiak 2023, "A circuit for Python docstrings in a 4-layer attention-only transformer".
    """
    return build(model, "docstring", partial(grammars.docstring, split=split), n=n, seed=seed, split=split)


def facts(model: HookedModel, n: int = 64, seed: int = 0, *, relation: grammars.Relation = "any") -> ContrastBatch:
    """Simple facts: ``The capital of France is`` -> `` Paris``. Roles SUBJECT (its last token), END.

    Args:
        model: the model whose tokenizer is used.
        n: number of prompts.
        seed: of the draws.
        relation: ``any``, ``capital``, ``landmark`` or ``language``.
    """
    check_choice("relation", relation, get_args(grammars.Relation))
    return build(model, "facts", partial(grammars.facts, relation=relation), n=n, seed=seed, relation=relation)


def eiffel(model: HookedModel, n: int = 1, seed: int = 0) -> ContrastBatch:
    """``The Eiffel Tower is located in the city of`` -> `` Paris``: one prompt for lenses, not corrupted.

    For a tokenizer without these words (those of the bundled models), it is one of the landmarks of `facts`.

    Args:
        model: the model whose tokenizer is used.
        n: number of identical copies.
        seed: of the landmark.
    """
    check_n("eiffel", n)
    text = "The Eiffel Tower is located in the city of"
    example = Example(text, text, (" Paris",), (" Rome",), template="eiffel")
    if misfit(model, example):
        return facts(model, n, seed, relation="landmark")
    return from_examples(model, [example] * n, {"name": "eiffel", "n": n, "seed": seed, "dropped": {}})


def induction(model: HookedModel, n: int = 64, seed: int = 0, *, period: int = 12) -> ContrastBatch:
    """Induction: a repeated random sequence, whose last token can be copied from its first occurrence.

    The corrupted prompt has another token there. It needs no tokenizer. Roles FIRST (the first occurrence of the
    answer), PREVIOUS (the token before it), END.

    Args:
        model: the model whose vocabulary is used, without special tokens.
        n: number of prompts.
        seed: of the draws.
        period: length of the sequence.

    Source: Elhage et al. 2021; Olsson et al. 2022, arXiv 2209.11895.
    """
    check_n("induction", n)
    limit = (model.architecture.n_ctx - 1) // 2
    if not 2 <= period <= limit:
        raise ConfigError(f"induction: period={period} does not fit the model's context", allowed=f"2 to {limit}")
    pool = model.text.plain_ids(model.architecture.d_vocab)
    if len(pool) <= period:
        raise ConfigError(
            f"induction: prompts of period {period} cannot be drawn from {len(pool)} tokens",
            allowed="a period below the number of tokens",
        )
    generator = torch.Generator().manual_seed(seed)
    draws = torch.stack([pool[torch.randperm(len(pool), generator=generator)[: period + 1]] for _ in range(n)])
    sequence, other = draws[:, :period], draws[:, period]
    start = [] if model.text.bos is None else [torch.full((n, 1), model.text.bos)]
    clean = torch.cat([*start, sequence, sequence[:, :-1]], 1)
    first = len(start) + period - 1
    corrupted = clean.clone()
    corrupted[:, first] = other
    roles = {"FIRST": torch.full((n,), first), "PREVIOUS": torch.full((n,), first - 1)}
    batch = ContrastBatch.from_tokens(clean, corrupted, sequence[:, -1], other, roles=roles)
    strings = tuple(model.text.strings(row) for row in clean.tolist())
    info = {"name": "induction", "n": n, "seed": seed, "period": period, "dropped": {}}
    return replace(batch, strings=strings, groups=("repeat",) * n, info=info).to(model.device)
