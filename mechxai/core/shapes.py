"""Names of tensor dimensions, and type aliases built from them.

``batch`` prompts, ``pos`` token positions (``dest_pos`` attends to ``src_pos``), ``layer``, ``head``, ``d_model``,
``d_head``, ``d_mlp``, ``d_vocab``; counts are ``n_layers``, ``n_heads``, ``n_ctx``. ``alt`` counts alternative
answers, ``answer_tok`` the tokens of one answer, ``k`` the positions a metric reads, ``rows`` a batch that hooks may
have extended.
"""

from typing import TypeVar, cast

from jaxtyping import Bool, Float, Int
from torch import Tensor

Rows = slice | Int[Tensor, " n"]  # a slice of prompts, or their numbers
_T = TypeVar("_T")

Tokens = Int[Tensor, "batch pos"]
Mask = Bool[Tensor, "batch pos"]
Answers = Int[Tensor, "batch alt answer_tok"]
PerPrompt = Float[Tensor, " batch"]
PromptInts = Int[Tensor, " batch"]
Logits = Float[Tensor, "batch pos d_vocab"]
LogitsAt = Float[Tensor, "batch k d_vocab"]
Activation = Float[Tensor, "batch ..."]
RowLogits = Float[Tensor, "rows k d_vocab"]


def pick(values: tuple[_T, ...], chosen: Rows) -> tuple[_T, ...]:
    """The entries of a tuple at the given rows; an empty tuple stays empty."""
    if isinstance(chosen, slice) or not values:
        return values[chosen] if isinstance(chosen, slice) else ()
    numbers = cast("list[int]", chosen.tolist())  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
    return tuple(values[number] for number in numbers)
