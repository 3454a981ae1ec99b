"""Keeps secrets, and values of the environment, out of what is written to disk or sent to a tracker."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

MASK = "***"
_NAMES = (
    r"api_?key|secret|passw(?:or)?d|passphrase|(?:(?:api|access|auth|hf|secret)_?)?token|credentials?|authorization"
)
_KEY = re.compile(rf"(^|[_.-])({_NAMES})$", re.IGNORECASE)
_OVERRIDE = re.compile(rf"(?P<key>[+~]*(?:[\w.]*[_.])?(?:{_NAMES}))=", re.IGNORECASE)
_SHORT = 6  # letters; a shorter value is replaced only where it is the whole text


def masked(node: Any, values: Mapping[str, str] | None = None, *, keys: bool = True) -> Any:
    """Plain data with ``***`` for the values of keys that look like secrets, and other texts for the given values.

    Args:
        node: the data.
        values: text -> what stands for it, wherever it occurs; of short texts only where they are the whole value.
        keys: whether keys are looked at, too.
    """
    values = values or {}
    if isinstance(node, Mapping):
        items = cast("Mapping[object, Any]", node).items()
        names = ((_replaced(key, values) if isinstance(key, str) else key, value) for key, value in items)
        return {
            name: MASK if keys and _is_secret(str(name), value) else masked(value, values, keys=keys)
            for name, value in names
        }
    if isinstance(node, (list, tuple)):
        return [masked(item, values, keys=keys) for item in cast("Sequence[object]", node)]
    return _replaced(node, values) if isinstance(node, str) else node


def masked_override(override: str) -> str:
    """An override of the command line with ``***`` for the value of a key that looks like a secret."""
    match = _OVERRIDE.match(override)
    return f"{match['key']}={MASK}" if match else override


def _is_secret(key: str, value: object) -> bool:
    return _KEY.search(key) is not None and isinstance(value, str) and value != "" and not value.startswith("${")


def _replaced(text: str, values: Mapping[str, str]) -> str:
    for value, name in values.items():
        if text == value:
            return name
        if len(value) >= _SHORT:
            text = text.replace(value, name)
    return text
