"""Converts values to plain containers without secrets, before they leave this machine.

A key is dropped when it names a secret (``api_key``, ``hf_token``, ``password``); inside texts, such as command line
overrides or the ``repr`` of an object, the secret's value is replaced. Keys about the model's tokens (``bos_token``,
``n_tokens``) stay, and so do numbers and flags under a key that merely ends in ``token``.
"""

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

_REMOVED = "<removed>"
_SECRETS = re.compile(
    r"secrets?|passw(?:or)?ds?|pwd|passphrase|credentials?|authorization|bearer|cookie|\w+(?:api|access|secret)key|apikey"
)
_KEY_KINDS = re.compile(r"api|access|account|auth|encryption|github|hf|hub|private|refresh|session|signing|ssh|wandb")
_MODEL_TOKENS = re.compile(
    r"answer|bos|cls|clean|correct|corrupted|end|eos|filler|final|first|last|mask|next|pad|per|predicted|prepend|sep|source|"
    r"space|special|start|stop|subject|target|top|unk|wrong"
)
_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")
_PAIR = re.compile(
    r"""(?P<key>[\w.+/@~-]+)["']?\s*[=:]\s*["']?(?P<value>(?:Bearer\s+)?[^\s"',;&)}\]]+)""", re.IGNORECASE
)
_KNOWN_SECRET = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[opsu]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|wandb_v\d_\w{20,})"
)
_URL_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")


def plain(value: object) -> object:
    """The value as dicts, lists, texts, numbers, booleans and None, without secrets; other objects become text."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else json.dumps(value)  # NaN and Infinity as W&B spells them
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Mapping):
        return plain_mapping(value)
    if is_dataclass(value) and not isinstance(value, type):
        return plain_mapping({item.name: getattr(value, item.name) for item in fields(value)})
    return _plain_object(value)


def plain_mapping(values: Mapping[Any, Any]) -> dict[str, object]:
    """`plain` of each value whose key does not name a secret; keys become texts."""
    return {str(key): plain(value) for key, value in values.items() if not names_secret(str(key), value)}


def scrub(text: str) -> str:
    """The text without secrets: values of ``hf_token=...`` or ``api_key: '...'``, and well-known token formats."""
    parts, at = [], 0
    while match := _PAIR.search(text, at):
        parts.append(text[at : match.start("value")])
        at = match.start("value")  # the value of a harmless key may contain a pair
        if names_secret(match["key"], match["value"]):
            parts.append(_REMOVED)
            at = match.end()
    parts.append(text[at:])
    return _URL_LOGIN.sub(f"{_REMOVED}@", _KNOWN_SECRET.sub(_REMOVED, "".join(parts)))


def names_secret(key: str, value: object) -> bool:
    """Whether a value under this key is a secret, to be left out of records."""
    words = [word.lower() for word in _WORD.findall(key.rsplit(".", 1)[-1])]
    if not words:
        return False
    if any(_SECRETS.fullmatch(word) for word in words):
        return True
    if any(
        _KEY_KINDS.fullmatch(kind) and noun in {"key", "keys", "token", "tokens"}
        for kind, noun in itertools.pairwise(words)
    ):
        return True
    is_model_token = len(words) > 1 and _MODEL_TOKENS.fullmatch(words[-2])
    is_number = value is None or isinstance(value, (bool, int, float))  # token ids, flags, weights per token
    return words[-1].endswith("token") and not is_number and not is_model_token


def _plain_object(value: object) -> object:
    """Texts are scrubbed, scalars become numbers, arrays their shape, sequences and sets lists, other objects text."""
    shape = getattr(value, "shape", None)
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if shape is not None and hasattr(value, "item"):
        return plain(value.item()) if len(shape) == 0 else f"{type(value).__name__} {tuple(shape)}"  # type: ignore[attr-defined] # guarded by hasattr
    if isinstance(value, (set, frozenset)):
        return [plain(item) for item in sorted(value, key=str)]
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    return scrub(str(value))
