"""Contrast batches from given texts, with given answers or the model's own predictions."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch

from mechxai.core.alignment import plain_list
from mechxai.core.batch import Answer, ContrastBatch
from mechxai.core.errors import ConfigError, ShapeError
from mechxai.model.hooked_model import HookedModel
from mechxai.model.sequence.named_outputs import NamedOutputs


def prompts(  # noqa: PLR0913 - the signature of tasks, and one argument per input
    model: HookedModel | NamedOutputs,
    n: int | None = None,
    seed: int = 0,
    *,
    texts: Iterable[str],
    answers: Iterable[Any] | None = None,
    wrong: Iterable[Any] | None = None,
    counterfactuals: Iterable[str] | None = None,
) -> ContrastBatch:
    """A batch of given texts, as lists, tuples, numpy arrays or pandas Series.

    Args:
        model: the model whose tokenizer is used, and which supplies missing answers.
        n: number of texts to take from the start; all by default.
        seed: unused; part of every task's signature.
        texts: the prompts. For a masked model each contains the mask token.
        answers: the answers to explain: texts with their leading space, or token ids; labels for a classifier. The
            model's top prediction by default.
        wrong: the answers to compare with; the model's next prediction by default.
        counterfactuals: one text per prompt with equally many tokens, as a baseline or to patch from; the texts
            themselves by default, which leaves nothing corrupted.

    Returns:
        A batch with the role END only.

    Raises:
        ConfigError: no text, an empty text, or lists of different length.
        AlignmentError: a counterfactual with a different number of tokens.

    Cost: a forward pass per prompt without a given answer or wrong answer.
    """
    del seed
    clean: list[str] = plain_list("texts", texts)[:n]
    empty = [number for number, text in enumerate(clean) if not text.strip()]
    if not clean or empty:
        raise ConfigError(
            f"Text {empty[0]} is empty" if empty else "There are no texts",
            fix="Give texts=[...] with at least a word each",
        )
    right, other = _leading("answers", answers, len(clean)), _leading("wrong", wrong, len(clean))
    if right is None or other is None:
        predictions = _predictions(model, clean, right)
        right = [first for first, _ in predictions] if right is None else right
        other = [second for _, second in predictions] if other is None else other
    corrupted = _leading("counterfactuals", counterfactuals, len(clean)) or clean
    batch = model.contrast(clean, corrupted, right, other)
    info = {"name": "prompts", "n": len(clean), "texts": tuple(clean), "dropped": {}}
    return replace(batch, info=info)


def _leading(name: str, values: Iterable[Any] | None, n: int) -> list[Any] | None:
    """The first ``n`` values, or None."""
    if values is None:
        return None
    listed = plain_list(name, values)
    if len(listed) < n:
        raise ConfigError(f"{name} has {len(listed)} entries for {n} texts: give one per text")
    return listed[:n]


def _predictions(
    model: HookedModel | NamedOutputs, texts: Sequence[str], right: Sequence[Answer] | None
) -> list[tuple[int, int]]:
    """The model's top prediction for every text, and its top prediction other than the answer."""
    pairs = []
    for number, text in enumerate(texts):
        tokens, lengths = model.tokens(text)
        sequence = isinstance(model, NamedOutputs)
        at = 0 if sequence else model.text.answer_position(tokens[0].tolist())
        logits = model.logits(tokens, lengths=lengths, at=torch.tensor([[at]], device=tokens.device))[0, 0]
        order = logits.topk(min(3, len(logits))).indices.tolist()
        if right is None:
            pairs.append((order[0], order[1]))
            continue
        answer = right[number]
        first = model.output(answer) if sequence else model.text.answer(text, answer)[0]
        rest = [token for token in order if token != first]
        if not rest:
            raise ShapeError(f"{model.name} has only one output, so there is no wrong answer", fix="Give wrong=[...]")
        pairs.append((first, rest[0]))
    return pairs
