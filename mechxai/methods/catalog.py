"""The methods of this package, read from their files: names, cards and fields, without importing torch.

A file in a family's folder that defines a class under ``@register(MethodCard(...))`` is a method. Nothing else lists
methods: the registry, ``import mechxai``, the configuration, the command line and the documentation read this.
"""

import ast
import importlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mechxai.core.cached import cached_property
from mechxai.core.signature import Parameter, Signature, read_signature
from mechxai.core.source import classes, evaluate

_FOLDER = Path(__file__).parent
FAMILIES = ("patching", "circuits", "lens", "probes", "attribution", "attention", "cot")
"""In the order in which they are listed; a folder beyond these comes after them."""


@dataclass(frozen=True)
class MethodEntry:
    """One method.

    Attributes:
        module: the dotted name of its file.
        class_name: its name in Python, ``mx.<class_name>``.
        name, family, question, cost, source, kind, pros, cons: as on its card.
    """

    module: str
    class_name: str
    name: str
    family: str
    question: str
    cost: str
    source: str
    kind: str = "grid"
    pros: str = ""
    cons: str = ""

    @cached_property
    def fields(self) -> dict[str, Parameter]:
        """Name -> field; also its config keys."""
        return self._signature.parameters if self._signature else {}

    @property
    def doc(self) -> str:
        """The docstring of its class."""
        return self._signature.doc if self._signature else ""

    @cached_property
    def _signature(self) -> Signature | None:
        return read_signature(self.module, self.class_name)

    @property
    def target(self) -> str:
        """The dotted name of its class, as configs have it."""
        return f"{self.module}.{self.class_name}"


@cache
def method_modules() -> tuple[str, ...]:
    """Dotted names of the files that may hold a method, family by family."""
    families = [path for path in _FOLDER.iterdir() if path.is_dir() and not path.name.startswith("_")]
    order = {name: rank for rank, name in enumerate(FAMILIES)}
    families.sort(key=lambda path: (order.get(path.name, len(order)), path.name))
    package = __name__.rpartition(".")[0]
    return tuple(
        f"{package}.{family.name}.{path.stem}"
        for family in families
        for path in sorted(family.glob("*.py"))
        if not path.stem.startswith("_")
    )


@cache
def catalog() -> dict[str, MethodEntry]:
    """Name of a method -> its entry, by family, then name."""
    entries = [entry for module in method_modules() for entry in _entries(module)]
    return {entry.name: entry for entry in entries}


@cache
def import_methods(family: str) -> None:
    """Imports the methods of a family, which registers them."""
    for entry in catalog().values():
        if entry.family == family:
            importlib.import_module(entry.module)


@cache
def public_methods() -> dict[str, str]:
    """Class name of a method -> its module."""
    return {entry.class_name: entry.module for entry in catalog().values()}


def _entries(module: str) -> list[MethodEntry]:
    return [_entry(module, node.name, card) for node in classes(module) if (card := _card(node)) is not None]


def _card(node: ast.ClassDef) -> ast.Call | None:
    """The ``MethodCard(...)`` of a class under ``@register(MethodCard(...))``."""
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "register" and decorator.args:
            card = decorator.args[0]
            return card if isinstance(card, ast.Call) else None
    return None


def _entry(module: str, class_name: str, card: ast.Call) -> MethodEntry:
    order = ("name", "family", "question", "cost", "source", "kind", "pros", "cons")
    texts = {key: evaluate(module, value) for key, value in zip(order, card.args, strict=False)}
    texts |= {str(keyword.arg): evaluate(module, keyword.value) for keyword in card.keywords}
    return MethodEntry(module, class_name, **texts)
