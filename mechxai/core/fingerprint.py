"""Content hashes of the values that determine a result: tensors by their bytes, dataclasses by their fields."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, cast

from torch import Tensor


class Fingerprints:
    """Hashes values; an object that occurs twice (a source that many edits share) is hashed once.

    A dataclass with a ``weight_hash`` (a model) counts as that hash, a function as its name and byte code.
    """

    def __init__(self) -> None:
        self._hashes: dict[int, str] = {}
        self._alive: list[object] = []  # an id stays valid only while its object lives

    def __call__(self, value: object) -> str:
        """The hash of a value, in hexadecimal."""
        if value is None or isinstance(value, (str, int, float, bool)):
            return repr(value)
        if id(value) not in self._hashes:
            self._hashes[id(value)] = hashlib.blake2b(self._bytes(value), digest_size=16).hexdigest()
            self._alive.append(value)
        return self._hashes[id(value)]

    def _bytes(self, value: Any) -> bytes:
        if isinstance(value, Tensor):
            plain = value.detach().cpu().contiguous()
            return f"{plain.dtype}{tuple(plain.shape)}".encode() + plain.view(-1).numpy(force=True).tobytes()
        return self._text(value).encode()

    def _text(self, value: Any) -> str:
        if isinstance(value, Mapping):
            pairs = cast("Mapping[object, object]", value).items()
            return repr(sorted((self(key), self(item)) for key, item in pairs))
        if isinstance(value, Sequence):
            return repr([self(item) for item in cast("Sequence[object]", value)])
        if hasattr(value, "weight_hash"):
            return str(value.weight_hash)
        if is_dataclass(value):
            parts = [(field.name, self(getattr(value, field.name))) for field in fields(value)]
            return f"{type(value).__qualname__}{parts}"
        if code := getattr(value, "__code__", None):
            return f"{value.__qualname__}{code.co_code.hex()}{code.co_consts!r}"
        return repr(value)
