"""The tokens before every text: the tokenizer's own beginning-of-sequence token, never one set by a library."""

import copy
from typing import Any

from mechxai.model.text import TextCodec


def text_codec(tokenizer: Any, *, bos: bool, masked: bool, changed: bool = False) -> TextCodec:
    """A tokenizer with the tokens that stand before a text.

    These are the special tokens that ``tokenizer(text)`` itself puts first. A tokenizer that puts none but has a
    ``bos_token`` (GPT-2) gets that one. End-of-sequence tokens that a tokenizer appends are left out.

    Args:
        tokenizer: a Hugging Face tokenizer, or None.
        bos: put a beginning-of-sequence token before every text, where the tokenizer has one.
        masked: for a masked language model, whose texts get all special tokens.
        changed: TransformerLens had the tokenizer, and set ``bos_token = eos_token`` if it had none.
    """
    if tokenizer is None or not bos:
        return TextCodec(tokenizer, None, masked)
    own = None if changed and _bos_was_absent(tokenizer) else getattr(tokenizer, "bos_token_id", None)
    prefix = special_prefix(tokenizer)
    if not prefix:
        return TextCodec(tokenizer, own, masked)
    return TextCodec(tokenizer, own if own in prefix else prefix[0], masked, prefix)


def special_prefix(tokenizer: Any) -> tuple[int, ...]:
    """The token ids that ``tokenizer(text)`` puts before the text."""
    text = "a"
    ids, body = list(tokenizer(text)["input_ids"]), list(tokenizer(text, add_special_tokens=False)["input_ids"])
    starts = [n for n in range(len(ids) - len(body) + 1) if ids[n : n + len(body)] == body]
    return tuple(ids[: starts[0]]) if body and starts else ()


def separate_tokenizer(tokenizer: Any) -> Any:
    """A copy for TransformerLens, which sets special tokens on the tokenizer it gets."""
    return copy.deepcopy(tokenizer)


def _bos_was_absent(tokenizer: Any) -> bool:
    """Whether the tokenizer was made without a ``bos_token``, and its present one is its ``eos_token``."""
    absent = getattr(tokenizer, "init_kwargs", {}).get("bos_token") is None
    return absent and getattr(tokenizer, "bos_token_id", None) == getattr(tokenizer, "eos_token_id", None)
