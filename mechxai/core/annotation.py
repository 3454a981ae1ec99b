"""Annotations read from source text: which values a parameter takes, without importing anything."""

import ast
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from mechxai.core.errors import ConfigError, nearest
from mechxai.core.source import Definition, evaluate, find, find_member

_SEQUENCES = ("Sequence", "Iterable", "tuple", "list")
_LARGEST_INT = 2**63 - 1
_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}


@dataclass(frozen=True)
class Annotation:
    """The values a parameter takes.

    Attributes:
        types: of plain types those allowed, ``none`` among them.
        choices: values named by ``Literal``.
        items: of a sequence, the annotation of its items.
        open: other types are allowed too, so that no value can be refused here.
    """

    types: frozenset[str] = frozenset()
    choices: tuple[Any, ...] = ()
    items: "Annotation | None" = None
    open: bool = False

    def __or__(self, other: "Annotation") -> "Annotation":
        """Both together, as in ``int | None``."""
        return Annotation(
            self.types | other.types,
            tuple(dict.fromkeys((*self.choices, *other.choices))),
            self.items or other.items,
            self.open or other.open,
        )

    @property
    def values(self) -> tuple[Any, ...]:
        """The choices, of a sequence those of its items; true and false for a switch."""
        if self.types == frozenset({"bool"}):
            return ("true", "false")
        return self.choices or (self.items.values if self.items else ())

    def check(self, name: str, value: object) -> None:
        """Refuses a value of another kind.

        Raises:
            ConfigError: with the value, and what is allowed.
        """
        if self.items is not None and isinstance(value, (list, tuple)):
            for item in cast("list[object] | tuple[object, ...]", value):
                self.items.check(name, item)
            return
        if self.open:
            return
        if self._fits(value):
            _check_number(name, value)
            return
        if self.items is not None and not self.types - {"none"}:
            self.items.check(name, value)
            return
        if self.choices and isinstance(value, str):
            raise ConfigError(f"{name}={value!r} is not allowed. {nearest(value, map(str, self.choices))}")
        raise ConfigError(f"{name}={value!r} is not {self._words()}")

    def _fits(self, value: object) -> bool:
        if value is None:
            return "none" in self.types
        if isinstance(value, bool):
            return "bool" in self.types or any(value is choice for choice in self.choices)
        if isinstance(value, (int, float)) and "float" in self.types:
            return True
        return type(value).__name__ in self.types or value in self.choices

    def _words(self) -> str:
        words = [_WORDS[name] for name in _WORDS if name in self.types]
        words += [repr(choice) for choice in self.choices]
        words += ["null"] if "none" in self.types else []
        if self.items is not None:
            words.append("a list")
        return " or ".join(words)


def _check_number(name: str, value: object) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name}={value!r} is not a finite number")
    if isinstance(value, int) and abs(value) > _LARGEST_INT:
        raise ConfigError(f"{name}={value} is too large", allowed=f"whole numbers up to {_LARGEST_INT}")


_OPEN = Annotation(open=True)
_PLAIN_TYPES = {name: Annotation(frozenset({name})) for name in _WORDS}
_PLAIN_TYPES["Path"] = _PLAIN_TYPES["str"]  # as a configuration writes it


def read_annotation(module: str, node: ast.AST | None) -> Annotation:
    """The annotation of a parameter, aliases of this package resolved; open where the source does not tell."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):  # a forward reference
        node = ast.parse(node.value, mode="eval").body
    if isinstance(node, ast.Constant) and node.value is None:
        return Annotation(frozenset({"none"}))
    if isinstance(node, ast.Name):
        return _PLAIN_TYPES[node.id] if node.id in _PLAIN_TYPES else _alias(find(module, node.id))
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return _alias(find_member(module, node.value.id, node.attr))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return read_annotation(module, node.left) | read_annotation(module, node.right)
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        return _subscript(module, node.value.id, node.slice)
    return _OPEN


def _alias(alias: Definition | None) -> Annotation:
    if alias is None or isinstance(alias.node, (ast.ClassDef, ast.FunctionDef)):
        return _OPEN
    return read_annotation(alias.module, alias.node)


def _subscript(module: str, name: str, inner: ast.AST) -> Annotation:
    parts: Iterable[ast.AST] = inner.elts if isinstance(inner, ast.Tuple) else (inner,)
    if name == "Literal":
        return Annotation(choices=tuple(evaluate(module, part) for part in parts))
    if name in _SEQUENCES:
        items = Annotation()
        for part in parts:
            if not (isinstance(part, ast.Constant) and part.value is Ellipsis):
                items |= read_annotation(module, part)
        return Annotation(items=items)
    return _OPEN
