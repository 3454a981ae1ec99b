"""Fields of frozen dataclasses brought into one form and checked, by their annotations.

A config gives lists, Python gives tuples, numpy gives its own numbers. A field annotated as a sequence becomes a tuple
of plain values, so that all three are one method with one run id. A field refuses a value that its annotation does not
name: another type, or another choice than those of a ``Literal``, which is the only place where they are written.
"""

import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

from mechxai.core.annotation import Annotation

_PLAIN: dict[object, str] = {int: "int", float: "float", bool: "bool", str: "str", type(None): "none"}


def choices(annotation: object) -> tuple[Any, ...]:
    """The values that an annotation names in ``Literal``s, those of unions and sequences included; empty for others."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    found: tuple[Any, ...] = ()
    for part in get_args(annotation):
        found += choices(part)
    return tuple(dict.fromkeys(found))


def settle_fields(instance: Any) -> None:
    """Turns the sequence fields of a new frozen dataclass into tuples, numpy's numbers into Python's, and checks all.

    Raises:
        ConfigError: a value that its field's annotation does not name; of a choice, names the closest one.
    """
    hints = _hints(cast("type[Any]", type(instance)))
    for field in fields(instance):
        annotation, value = hints[field.name], getattr(instance, field.name)
        if value is not None and _is_sequence(annotation) and not (isinstance(value, str) and _takes_text(annotation)):
            value = as_tuple(value)
            object.__setattr__(instance, field.name, value)
        elif isinstance(value, np.generic):
            value = cast("object", value.item())
            object.__setattr__(instance, field.name, value)
        _annotation(annotation).check(field.name, value)


def as_tuple(value: object) -> tuple[Any, ...]:
    """A sequence as a tuple of plain values, a single value as a tuple of one."""
    many = isinstance(value, Iterable) and not isinstance(value, (str, Mapping))
    items = cast("Iterable[Any]", value if many else (value,))
    return tuple(item.item() if hasattr(item, "item") else item for item in items)


def _annotation(hint: object) -> Annotation:
    """What a field's type hint allows: plain types, ``Literal`` choices, sequences; open for other types."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint in _PLAIN:
        return Annotation(frozenset({_PLAIN[hint]}))
    if origin is Literal:
        return Annotation(choices=parts)
    if origin in (Union, types.UnionType):
        return _union(parts)
    if origin in (Sequence, tuple):
        return Annotation(items=_union(part for part in parts if part is not Ellipsis))
    return Annotation(open=True)


def _union(hints: Iterable[object]) -> Annotation:
    together = Annotation()
    for hint in hints:
        together |= _annotation(hint)
    return together


def _is_sequence(annotation: object) -> bool:
    if get_origin(annotation) in (Union, types.UnionType):
        return any(_is_sequence(part) for part in get_args(annotation))
    return get_origin(annotation) in (Sequence, tuple)


def _takes_text(annotation: object) -> bool:
    """Whether a union names text beside the sequence: ``str | Sequence[str]`` keeps a name as it is."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else ()
    return any(part is str or get_origin(part) is Literal for part in parts)


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)
