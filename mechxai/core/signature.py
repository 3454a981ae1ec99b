"""Signatures of the classes and functions of this package, read from their source text."""

import ast
import re
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from mechxai.core.annotation import Annotation, read_annotation
from mechxai.core.source import UNKNOWN, evaluate, find

REQUIRED: Any = object()
"""The default of a parameter that has none."""


@dataclass(frozen=True)
class Parameter:
    """One field of a dataclass or argument of a function.

    Attributes:
        name: as a config spells it.
        annotation: the values it takes.
        default: its value where none is given; `REQUIRED` without one, `UNKNOWN` where the text does not show it.
        source: the default as it is written.
        doc: its description, from the docstring.
    """

    name: str
    annotation: Annotation
    default: Any
    source: str
    doc: str = ""


@dataclass(frozen=True)
class Signature:
    """A class or function.

    Attributes:
        name: of the class or function.
        module: where it stands.
        doc: its docstring.
        parameters: name -> parameter, in order.
        complete: whether it takes nothing but its parameters.
    """

    name: str
    module: str
    doc: str
    parameters: dict[str, Parameter]
    complete: bool = False

    @property
    def target(self) -> str:
        """Its dotted name."""
        return f"{self.module}.{self.name}"


@cache
def read_signature(module: str, name: str) -> Signature | None:
    """The signature of a class or function of this package; None where the module has no such name."""
    definition = find(module, name)
    if definition is None:
        return None
    node = definition.node
    if isinstance(node, ast.ClassDef):
        parameters, complete = _fields(definition.module, node), _is_dataclass(node)
    elif isinstance(node, ast.FunctionDef):
        parameters, complete = _arguments(definition.module, node), node.args.kwarg is None
    else:
        return None
    doc = ast.get_docstring(node) or ""
    docs = descriptions(doc)
    described = {key: replace(one, doc=docs.get(key, one.doc)) for key, one in parameters.items()}
    return Signature(node.name, definition.module, doc, described, complete)


def _fields(module: str, node: ast.ClassDef) -> dict[str, Parameter]:
    """The fields of a dataclass, those of its bases first."""
    parameters: dict[str, Parameter] = {}
    for base in node.bases:
        parent = find(module, base.id) if isinstance(base, ast.Name) else None
        if parent is not None and isinstance(parent.node, ast.ClassDef) and _is_dataclass(parent.node):
            inherited = read_signature(parent.module, parent.node.name)
            parameters |= inherited.parameters if inherited else {}
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            if "ClassVar" in (written := ast.unparse(statement.annotation)) or written == "KW_ONLY":
                parameters.pop(statement.target.id, None)
                continue
            name = statement.target.id
            parameters[name] = _parameter(module, name, statement.annotation, default=statement.value)
    return parameters


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def _arguments(module: str, node: ast.FunctionDef) -> dict[str, Parameter]:
    arguments = [*node.args.posonlyargs, *node.args.args]
    missing = [None] * (len(arguments) - len(node.args.defaults))
    pairs = [*zip(arguments, [*missing, *node.args.defaults], strict=True)]
    pairs += [*zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
    return {one.arg: _parameter(module, one.arg, one.annotation, default=default) for one, default in pairs}


def _parameter(module: str, name: str, annotation: ast.AST | None, *, default: ast.AST | None) -> Parameter:
    if default is None:
        return Parameter(name, read_annotation(module, annotation), REQUIRED, "...")
    return Parameter(name, read_annotation(module, annotation), _default(module, default), ast.unparse(default))


def _default(module: str, node: ast.AST) -> Any:
    """A literal; of ``IntegratedGradients()``, the mapping that a config has for it."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args and not node.keywords:
        definition = find(module, node.func.id)
        if definition is not None and isinstance(definition.node, ast.ClassDef):
            return {"_target_": f"{definition.module}.{definition.node.name}"}
        return UNKNOWN
    return evaluate(module, node)


def descriptions(doc: str) -> dict[str, str]:
    """Name -> description, from the ``Attributes:`` and ``Args:`` sections of a docstring in Google's style."""
    texts: dict[str, str] = {}
    for section in re.findall(r"^(?:Attributes|Args):\n((?:[ ]{4}.*\n?|\n(?=[ ]{4}))+)", doc, re.MULTILINE):
        names: list[str] = []
        for line in section.splitlines():
            match = re.match(r" {4}(?P<names>\w+(?:, \w+)*): (?P<text>.*)", line)
            if match:
                names = match["names"].split(", ")
                texts |= dict.fromkeys(names, match["text"])
            else:
                texts |= {name: f"{texts[name]} {line.strip()}".strip() for name in names}
    return texts
