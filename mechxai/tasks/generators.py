"""The tasks as users call them: ``(model, n, seed, **its own) -> ContrastBatch``."""

from dataclasses import replace
from functools import partial

import torch

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, check_choice
from mechxai.model.hooked_model import HookedModel
from mechxai.tasks import grammars
from mechxai.tasks.build import build, from_examples, misfit
from mechxai.tasks.example import Example


def ioi(  # noqa: PLR0913 - the public contract's form
    model: HookedModel,
    n: int = 64,
    seed: int = 0,
    *,
    order: str = "both",
    corruption: str = "swap",
    split: str = "all",
    template: int | None = None,
) -> ContrastBatch:
    """Indirect object identification: ``When Mary and John went to the store, John gave a drink to`` -> `` Mary``.

    Args:
        model: decides the tokens.
        n: prompts.
        seed: of the draw.
        order: ``abba``, ``baba`` or ``both``.
        corruption: ``swap`` repeats the other name (the answer flips), ``abc`` a third name (nothing is repeated).
        split: ``all``, ``train`` or ``held_out`` names and templates, as the bundled models know them.
        template: one template by number, so that positions line up (``mechxai.tasks.grammars.IOI_TEMPLATES``); all
            mixed by default.

    Returns:
        A batch with roles IO, S1, S2, END.

    Source: Wang et al. 2022, arXiv 2211.00593.
    """
    check_choice("order", order, ("abba", "baba", "both"))
    check_choice("corruption", corruption, ("swap", "abc"))
    if template is not None and not 0 <= template < len(grammars.IOI_TEMPLATES):
        raise ConfigError(
            f"ioi: template={template} was asked", allowed=f"0 to {len(grammars.IOI_TEMPLATES) - 1}, or null for all"
        )
    own = {"order": order, "corruption": corruption, "split": split, "template": template}
    return build(model, "ioi", partial(grammars.ioi, **own), n=n, seed=seed, **own)


def greater_than(model: HookedModel, n: int = 64, seed: int = 0, *, split: str = "all") -> ContrastBatch:
    """Greater-than: ``The war lasted from the year 1732 to the year 17`` -> any of 33 to 99; use ``metric=prob_diff``.

    Source: Hanna et al. 2023, arXiv 2305.00586. Roles NOUN, YEAR, END.
    """
    return build(model, "greater_than", partial(grammars.greater_than, split=split), n=n, seed=seed, split=split)


def sva(model: HookedModel, n: int = 64, seed: int = 0, *, split: str = "all") -> ContrastBatch:
    """Subject-verb agreement across attractors: ``The keys near the cabinet`` -> `` are``. Roles SUBJECT, END.

    Source: Linzen et al. 2016, arXiv 1611.01368 (the phenomenon); corrupted flips the subject's number.
    """
    return build(model, "sva", partial(grammars.sva, split=split), n=n, seed=seed, split=split)


def docstring(model: HookedModel, n: int = 64, seed: int = 0, *, split: str = "all") -> ContrastBatch:
    """Docstring completion: the next ``:param`` is the function's next argument. Roles ANSWER_DEF, PREVIOUS_DEF, END.

    Source: Heimersheim and Janiak 2023, "A circuit for Python docstrings in a 4-layer attention-only transformer".
    """
    return build(model, "docstring", partial(grammars.docstring, split=split), n=n, seed=seed, split=split)


def facts(model: HookedModel, n: int = 64, seed: int = 0, *, relation: str = "any") -> ContrastBatch:
    """Simple facts: ``The capital of France is`` -> `` Paris``. Roles SUBJECT (its last token), END.

    ``relation``: ``any``, ``capital``, ``landmark`` or ``language``.
    """
    check_choice("relation", relation, ("any", "capital", "landmark", "language"))
    return build(model, "facts", partial(grammars.facts, relation=relation), n=n, seed=seed, relation=relation)


def eiffel(model: HookedModel, n: int = 1, seed: int = 0) -> ContrastBatch:
    """``The Eiffel Tower is located in the city of`` -> `` Paris``: one famous prompt for lenses; nothing is corrupted.

    A model whose vocabulary lacks its words (the bundled ones) gets one of the landmarks of `facts` instead.

    Args:
        model: decides which prompt.
        n: copies, for the signature all tasks share; they are all the same.
        seed: of the landmark.
    """
    text = "The Eiffel Tower is located in the city of"
    example = Example(text, text, (" Paris",), (" Rome",), template="eiffel")
    if misfit(model, example):
        return facts(model, n, seed, relation="landmark")
    return from_examples(model, [example] * n, {"name": "eiffel", "n": n, "seed": seed, "dropped": {}})


def induction(model: HookedModel, n: int = 64, seed: int = 0, *, period: int = 12) -> ContrastBatch:
    """A random sequence repeated: its last token follows from the first copy; corrupted changes that token there.

    Needs no tokenizer. Roles FIRST (the answer's place in the first copy), PREVIOUS (the token before it), END.

    Args:
        model: decides the vocabulary; special tokens are left out.
        n: prompts.
        seed: of the draw.
        period: length of the sequence.

    Source: Elhage et al. 2021; Olsson et al. 2022, arXiv 2209.11895.
    """
    limit = (model.architecture.n_ctx - 1) // 2
    if not 2 <= period <= limit:
        raise ConfigError(f"induction: period={period} was asked", allowed=f"2 to {limit}")
    pool = model.text.plain_ids(model.architecture.d_vocab)
    if n < 1 or len(pool) <= period:
        raise ConfigError(
            f"induction: n={n} prompts of period {period} were asked",
            got=f"{len(pool)} tokens to draw from",
            allowed="1 prompt or more, and more tokens than the period",
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
    made = ContrastBatch.from_tokens(clean, corrupted, sequence[:, -1], other, roles=roles)
    strings = tuple(model.text.strings(row) for row in clean.tolist())
    info = {"name": "induction", "n": n, "seed": seed, "period": period, "dropped": {}}
    return replace(made, strings=strings, groups=("repeat",) * n, info=info).to(model.device)
