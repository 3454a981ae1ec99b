"""Words that a tokenizer does not know: found by the text behind the unknown token, named in a warning or an error."""

import logging
from collections.abc import Sequence
from typing import Any

from mechxai.core.errors import ConfigError

_log = logging.getLogger("mechxai.model")
_LISTED = 8
_ROLES = ("bos_token", "eos_token", "cls_token", "sep_token", "mask_token")


def unknown_id(tokenizer: Any, bos: int | None) -> int | None:
    """The id for words outside the vocabulary; None where the same token also begins or ends texts, or is the mask.

    Tokens are compared as text, since a role whose token the vocabulary lacks has the id of unknown words.
    """
    unk_id = getattr(tokenizer, "unk_token_id", None)
    if unk_id is None or unk_id == bos:
        return None
    return None if tokenizer.unk_token in [getattr(tokenizer, role, None) for role in _ROLES] else unk_id


def unknown_words(tokenizer: Any, text: str, first: int = 0) -> list[str]:
    """The words of a text, from a character on, that the tokenizer does not know.

    An unknown token written out in the text is no unknown word.
    """
    unk_id = getattr(tokenizer, "unk_token_id", None)
    if unk_id is None or unk_id not in tokenizer(text, add_special_tokens=False)["input_ids"]:
        return []
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    words = [text[max(low, first) : high].strip() for token, (low, high) in spans if token == unk_id and high > first]
    return [word for word in words if word and word != tokenizer.unk_token]


def announce_unknown_words(tokenizer: Any, texts: Sequence[str]) -> None:
    """Logs the words of a batch that the tokenizer does not know, once for the batch."""
    words = list(dict.fromkeys(word for text in texts for word in unknown_words(tokenizer, text)))
    if words:
        more = f" and {len(words) - _LISTED} more" if len(words) > _LISTED else ""
        listed = ", ".join(repr(word) for word in words[:_LISTED])
        _log.warning("The tokenizer does not know %s%s: it reads %s instead", listed, more, tokenizer.unk_token)


def check_answer_known(tokenizer: Any, prompt: str, answer: str | int, *, unknown: int | None) -> None:
    """Refuses an answer that the tokenizer does not know, since its score would be that of any unknown word.

    Args:
        tokenizer: the tokenizer.
        prompt: the text before the answer.
        answer: a text or a token id.
        unknown: the id for words outside the vocabulary.

    Raises:
        ConfigError: names the word.
    """
    is_unknown = unknown is not None and (answer == unknown or str(answer).strip() == tokenizer.unk_token)
    words = unknown_words(tokenizer, prompt + answer, first=len(prompt)) if isinstance(answer, str) else []
    if is_unknown or words:
        raise ConfigError(
            f"Answer {answer!r} is outside the vocabulary: the tokenizer reads it as {tokenizer.unk_token}",
            fix="Use an answer that the tokenizer knows",
        )
