"""Content hashes of the values that determine a result: tensors by their bytes, functions by their code, and so on.

Equal hashes mean an equal question, so a value that cannot be identified by its content gets a hash of its own in every
process: what it determined is then computed again.
"""

import hashlib
import uuid
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from mechxai.core.code_identity import CODE, describe_code

DECIDES = "decides"  # metadata of a dataclass field: False where it has no part in results
_PLAIN = (str, int, float, bool, complex, type(None))


class Fingerprints:
    """Hashes values; an object that occurs twice (a source that many edits share) is hashed once.

    A value with a ``weight_hash`` (a model) counts as that hash, or as its ``identity``. A function counts as its code,
    defaults, closure, and the functions and values of its module that it uses; one of an installed package as its name
    and closure. An object counts as its class and its attributes.
    """

    def __init__(self) -> None:
        self._hashes: dict[int, str] = {}
        self._alive: list[object] = []  # an id stays valid only while its object lives
        self._open: list[int] = []  # values that are being hashed, which may contain themselves

    def __call__(self, value: object) -> str:
        """The hash of a value, in hexadecimal."""
        if isinstance(value, _PLAIN):
            return repr(value)
        if id(value) in self._open:
            return f"contains itself, {len(self._open) - self._open.index(id(value))} up"
        if id(value) not in self._hashes:
            self._hashes[id(value)] = self._hash(value)
            self._alive.append(value)
        return self._hashes[id(value)]

    def _hash(self, value: object) -> str:
        self._open.append(id(value))
        try:
            return hashlib.blake2b(self._bytes(value), digest_size=16).hexdigest()
        except RecursionError:
            if len(self._open) > 1:
                raise
            return _unknown()
        finally:
            self._open.pop()

    def _bytes(self, value: Any) -> bytes:
        if isinstance(value, Tensor):
            plain = value.detach().cpu().contiguous()
            return f"{plain.dtype}{tuple(plain.shape)}".encode() + plain.reshape(-1).view(torch.uint8).numpy().tobytes()
        if isinstance(value, np.ndarray):
            array = cast("np.ndarray[Any, np.dtype[Any]]", value)
            content = repr([self(item) for item in array.flat]).encode() if array.dtype == object else array.tobytes()
            return f"array {array.dtype}{array.shape}".encode() + content
        if isinstance(value, (bytes, bytearray)):
            return b"bytes" + value
        return self._text(value).encode(errors="surrogatepass")

    def _text(self, value: Any) -> str:
        if isinstance(value, (Mapping, Set, Sequence)):
            return self._collection(cast("object", value))
        if hasattr(value, "weight_hash"):
            return str(getattr(value, "identity", value.weight_hash))
        if isinstance(value, CODE):
            return describe_code(value, self)
        if is_dataclass(value):
            decisive = [field.name for field in fields(value) if field.metadata.get(DECIDES, True)]
            return self._object(value, {name: getattr(value, name) for name in decisive})
        if hasattr(value, "to_numpy"):  # a table or a column of pandas, whose text leaves rows out
            return self._object(value, {"values": value.to_numpy(), "index": list(getattr(value, "index", ()))})
        return self._other(value)

    def _collection(self, value: Any) -> str:
        if isinstance(value, Mapping):
            pairs = cast("Mapping[object, object]", value).items()
            return repr(sorted((self(key), self(item)) for key, item in pairs))
        hashes = [self(item) for item in value]
        return repr(sorted(hashes) if isinstance(value, Set) else hashes)

    def _object(self, value: object, attributes: Mapping[str, object]) -> str:
        """An object's class and attributes."""
        return f"{self(type(value))}{[(name, self(attribute)) for name, attribute in sorted(attributes.items())]}"

    def _other(self, value: object) -> str:
        attributes = getattr(value, "__dict__", None)
        if attributes is not None:
            return self._object(value, attributes)
        text = repr(value)
        return _unknown() if " at 0x" in text else f"{type(value).__qualname__} {text}"


def _unknown() -> str:
    """The hash of a value whose content is not accessible; no other value has it."""
    return uuid.uuid4().hex
