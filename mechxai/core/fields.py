"""Fields of frozen dataclasses brought into one form and checked, by their annotations.

A config gives lists, Python gives tuples, numpy gives its own numbers. A field annotated as a sequence becomes a tuple
of plain values, so that all three are one method with one run id. A field annotated as a ``Literal`` refuses any other
value: the annotation is the only place where its choices are written.
"""

import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from mechxai.core.errors import check_choice


def choices(annotation: object) -> tuple[Any, ...]:
    """The values that an annotation names in ``Literal``s, those of unions and sequences included; empty for others."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    found: tuple[Any, ...] = ()
    for part in get_args(annotation):
        found += choices(part)
    return tuple(dict.fromkeys(found))


def settle_fields(instance: Any) -> None:
    """Turns the sequence fields of a new frozen dataclass into tuples, and checks its ``Literal`` fields.

    Raises:
        ConfigError: a value that is none of its field's choices; names the closest one.
    """
    hints = _hints(cast("type[Any]", type(instance)))
    for field in fields(instance):
        annotation, value = hints[field.name], getattr(instance, field.name)
        if value is not None and _is_sequence(annotation) and not (isinstance(value, str) and _takes_text(annotation)):
            value = as_tuple(value)
            object.__setattr__(instance, field.name, value)
        _check(field.name, value, annotation)


def as_tuple(value: object) -> tuple[Any, ...]:
    """A sequence as a tuple of plain values, a single value as a tuple of one."""
    many = isinstance(value, Iterable) and not isinstance(value, (str, Mapping))
    items = cast("Iterable[Any]", value if many else (value,))
    return tuple(item.item() if hasattr(item, "item") else item for item in items)


def _check(name: str, value: object, annotation: object) -> None:
    """Refuses a value outside the choices, or an item of a sequence; annotations with other types allow anything."""
    allowed = choices(annotation)
    if not allowed or value is None or not _only_literals(annotation):
        return
    items: Iterable[object] = cast("Iterable[object]", value) if isinstance(value, tuple) else (value,)
    for item in items:
        if item not in allowed:
            check_choice(name, item, [str(choice) for choice in allowed])


def _only_literals(annotation: object) -> bool:
    if get_origin(annotation) in (Union, types.UnionType, Sequence, tuple):
        return all(_only_literals(part) for part in get_args(annotation) if part not in (type(None), Ellipsis))
    return get_origin(annotation) is Literal


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
