"""Prompts in the forms that people have: texts and token ids as lists, numpy arrays, pandas Series or tensors."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np
from jaxtyping import Int
from torch import Tensor

from mechxai.core.alignment import integer_tensor, plain_list
from mechxai.core.errors import ConfigError, ShapeError, SiteError
from mechxai.core.shapes import PromptInts, Tokens
from mechxai.core.torch_modes import ordinary
from mechxai.model.backends.limits import check_form


def texts_or_tokens(prompts: object) -> list[str] | Tokens:
    """The texts, or the token ids ``[batch, pos]``, that prompts of any form hold.

    Args:
        prompts: a text; a list, tuple, numpy array or pandas Series of texts; or token ids as a tensor, an array, or a
            list of rows of one length.

    Raises:
        ConfigError: neither texts nor token ids.
        ShapeError: no prompts, rows of different length, or a tensor of another form.
    """
    if isinstance(prompts, Tensor):
        check_form(prompts)
        if not len(prompts):
            raise ShapeError("There are no prompts", fix="Pass at least one row of token ids")
        return ordinary(prompts.long())
    if isinstance(prompts, str):
        return [prompts]
    if isinstance(prompts, (bytes, Mapping)) or not isinstance(prompts, Iterable):
        raise ConfigError(
            f"Prompts cannot be a {type(prompts).__name__}", allowed="a text, texts, or token ids [batch, pos]"
        )
    entries = plain_list("prompts", cast("Any", prompts).tolist() if isinstance(prompts, np.ndarray) else prompts)
    if not entries:
        raise ShapeError("There are no prompts", fix="Pass at least one text")
    if all(isinstance(entry, list) for entry in entries):
        tokens = integer_tensor("prompts", entries)
        check_form(tokens)
        return tokens
    wrong = next((entry for entry in entries if not isinstance(entry, str)), None)
    if wrong is not None or any(entry is None for entry in entries):
        raise ConfigError(
            f"Prompts must be texts or token ids [batch, pos], not a list of {type(wrong).__name__}",
            fix="Pass token ids as rows: [[5, 6, 7]], or torch.tensor([[5, 6, 7]])",
        )
    return entries


def lengths_of(lengths: object, tokens: Tokens) -> PromptInts | None:
    """Numbers of real tokens per row as a tensor ``[batch]``; None for none.

    Raises:
        ShapeError: not one whole number per row, from 1 to the width of the tokens.
    """
    if lengths is None:
        return None
    numbers = integer_tensor("lengths", lengths)
    if numbers.shape != (len(tokens),) or bool(((numbers < 1) | (numbers > tokens.shape[1])).any()):
        raise ShapeError(
            f"lengths is {numbers.tolist()}: it must hold the real tokens of each of {len(tokens)} rows, from 1 to "
            f"{tokens.shape[1]}"
        )
    return numbers


def positions_of(at: object, tokens: Tokens) -> Int[Tensor, "batch k"] | None:
    """Wanted positions of each row as a tensor ``[batch, k]``; None for all.

    Raises:
        ShapeError: not ``[batch, k]``.
        SiteError: a position that the tokens do not have.
    """
    if at is None:
        return None
    positions = integer_tensor("at", at)
    if positions.ndim != 2 or len(positions) != len(tokens):
        raise ShapeError(f"at has shape {list(positions.shape)}: it must be [{len(tokens)}, k], a row per prompt")
    outside = positions[(positions < 0) | (positions >= tokens.shape[1])]
    if outside.numel():
        raise SiteError(f"Position {int(outside[0])} is out of range: the prompts have {tokens.shape[1]} tokens")
    return positions


def text_columns(**columns: object) -> list[list[str]]:
    """Columns of texts of a batch as lists.

    Raises:
        ShapeError: a column is a single text or no sequence.
        ConfigError: an entry is no text.
    """
    lists = []
    for name, column in columns.items():
        entries = plain_list(name, column)
        wrong = [number for number, entry in enumerate(entries) if not isinstance(entry, str)]
        if wrong:
            raise ConfigError(
                f"{name} must hold texts: entry {wrong[0]} is {entries[wrong[0]]!r}",
                fix="Use mx.ContrastBatch.from_tokens for token ids",
            )
        lists.append(entries)
    return lists


def answer_columns(**columns: object) -> list[list[Any]]:
    """Columns of answers of a batch as lists: texts, token ids, or lists of them.

    Raises:
        ShapeError: a column is a single text or no sequence.
        ConfigError: an answer is neither a text nor a whole number.
    """
    lists = []
    for name, column in columns.items():
        entries = plain_list(name, column)
        for number, entry in enumerate(entries):
            for answer in cast("list[object]", entry) if isinstance(entry, list) else [entry]:
                if isinstance(answer, bool) or not isinstance(answer, (str, int)):
                    raise ConfigError(
                        f"{name} must hold texts or token ids: the answer of prompt {number} is {answer!r}"
                    )
        lists.append(entries)
    return lists
