"""Texts of one's own, with answers or with what the model itself would say."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from mechxai.core.batch import Answer, ContrastBatch
from mechxai.core.errors import ConfigError, ShapeError
from mechxai.model.hooked_model import HookedModel
from mechxai.model.sequence.named_outputs import NamedOutputs


def prompts(  # noqa: PLR0913 - the form all tasks share, and what is asked of these
    model: HookedModel | NamedOutputs,
    n: int | None = None,
    seed: int = 0,
    *,
    texts: Sequence[str],
    answers: Sequence[Answer] | None = None,
    wrong: Sequence[Answer] | None = None,
    counterfactuals: Sequence[str] | None = None,
) -> ContrastBatch:
    """Prompts of one's own.

    Args:
        model: decides the tokens, and the answers that are not given.
        n: how many of the texts to take, from the start; all by default.
        seed: kept for the signature all tasks share; nothing is drawn.
        texts: the prompts. For a masked model each holds its mask token.
        answers: what is explained, as it would be appended (with its leading space), or a token's id; a classifier's
            label. The model's own first choice by default.
        wrong: what it is set against; the model's next choice by default.
        counterfactuals: as many texts with as many tokens each, to be a baseline or to patch from; the texts themselves
            by default, so that there is none.

    Returns:
        A batch without roles but END.

    Raises:
        ConfigError: no text, or an empty one; lists of different length.
        AlignmentError: a counterfactual with another number of tokens.

    Cost: a forward pass per prompt whose answer or wrong answer is not given.
    """
    del seed
    chosen = list(texts)[:n]
    empty = [number for number, text in enumerate(chosen) if not text.strip()]
    if not chosen or empty:
        raise ConfigError(
            "Prompts were given",
            got=f"text {empty[0]} is empty" if empty else "none",
            fix="give texts=[...] with at least a word each",
        )
    for name, given in (("answers", answers), ("wrong", wrong), ("counterfactuals", counterfactuals)):
        if given is not None and len(given) < len(chosen):
            raise ConfigError(f"{name} of prompts", got=f"{len(given)} for {len(chosen)} texts")
    right = None if answers is None else list(answers)[: len(chosen)]
    other = None if wrong is None else list(wrong)[: len(chosen)]
    if right is None or other is None:
        own = _own_choices(model, chosen, right)
        right = [first for first, _ in own] if right is None else right
        other = [second for _, second in own] if other is None else other
    against = chosen if counterfactuals is None else list(counterfactuals)[: len(chosen)]
    batch = model.contrast(chosen, against, right, other)
    info = {"name": "prompts", "n": len(chosen), "texts": tuple(chosen), "dropped": {}}
    return replace(batch, info=info)


def _own_choices(
    model: HookedModel | NamedOutputs, texts: Sequence[str], right: Sequence[Answer] | None
) -> list[tuple[int, int]]:
    """The model's first choice for every text, and its next beside the answer that is given."""
    found = []
    for number, text in enumerate(texts):
        tokens, lengths = model.tokens(text)
        sequence = isinstance(model, NamedOutputs)
        at = 0 if sequence else model.text.answer_position(tokens[0].tolist())
        logits = model.logits(tokens, lengths=lengths, at=torch.tensor([[at]], device=tokens.device))[0, 0]
        order = logits.topk(min(3, len(logits))).indices.tolist()
        if right is None:
            found.append((order[0], order[1]))
            continue
        given = right[number]
        first = model.output(given) if sequence else model.text.answer(text, given)[0]
        rest = [token for token in order if token != first]
        if not rest:
            raise ShapeError("A wrong answer was needed", got="a model with one output")
        found.append((first, rest[0]))
    return found
