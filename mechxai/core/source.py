"""Names of this package resolved in its source text, so that settings can be checked before torch is imported.

A module is parsed, never run. A name is followed through assignments and ``from mechxai... import`` lines to the
definition it stands for; a literal value, a ``Literal`` annotation or a tuple of names is then evaluated.
"""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
UNKNOWN: Any = object()
"""A value that the source text does not show."""


@dataclass(frozen=True)
class Definition:
    """A statement that defines a name.

    Attributes:
        module: dotted name of the module it stands in.
        node: the class, the function, or the assigned expression.
    """

    module: str
    node: ast.AST


def classes(module: str) -> list[ast.ClassDef]:
    """The classes that a module of this package defines, in order."""
    return [node for node in _tree(module).values() if isinstance(node, ast.ClassDef)]


@cache
def _tree(module: str) -> dict[str, ast.AST]:
    """Top-level name -> the class, function, assigned expression or import that defines it, of a module here."""
    path = module_path(module)
    if path is None:
        return {}
    names: dict[str, ast.AST] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        _collect(node, names)
    return names


def module_path(module: str) -> Path | None:
    """The file of a module of this package; None where it is not one."""
    package, *parts = module.split(".")
    if package != _ROOT.name:
        return None
    folder = _ROOT.joinpath(*parts)
    for path in (folder.with_suffix(".py"), folder / "__init__.py"):
        if path.is_file():
            return path
    return None


def _collect(node: ast.AST, names: dict[str, ast.AST]) -> None:
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        names[node.name] = node
    elif isinstance(node, ast.Assign):
        names.update({target.id: node.value for target in node.targets if isinstance(target, ast.Name)})
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
        names[node.target.id] = node.value
    elif isinstance(node, ast.ImportFrom):
        names.update({alias.asname or alias.name: node for alias in node.names})


def find(module: str, name: str) -> Definition | None:
    """The definition of a top-level name, followed through imports within the package; None where there is none."""
    node = _tree(module).get(name)
    if isinstance(node, ast.ImportFrom):
        original = next(alias.name for alias in node.names if (alias.asname or alias.name) == name)
        return find(node.module or "", original)
    if isinstance(node, ast.Name):
        return find(module, node.id)
    return None if node is None else Definition(module, node)


def find_member(module: str, owner: str, name: str) -> Definition | None:
    """The definition of ``owner.name``, where ``owner`` is a module that another module imports."""
    node = _tree(module).get(owner)
    if not isinstance(node, ast.ImportFrom):
        return None
    original = next(alias.name for alias in node.names if (alias.asname or alias.name) == owner)
    return find(f"{node.module}.{original}", name)


def evaluate(module: str, node: ast.AST | None) -> Any:
    """The value of an expression of literals and names of literals; `UNKNOWN` where the text does not show it."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, (ast.Tuple, ast.List)):
        values = tuple(evaluate(module, item) for item in node.elts)
        return UNKNOWN if any(value is UNKNOWN for value in values) else values
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = evaluate(module, node.operand)
        return UNKNOWN if value is UNKNOWN else -value
    if isinstance(node, ast.Name):
        definition = find(module, node.id)
        return UNKNOWN if definition is None else evaluate(definition.module, definition.node)
    if isinstance(node, ast.JoinedStr):
        parts = [evaluate(module, part.value if isinstance(part, ast.FormattedValue) else part) for part in node.values]
        return UNKNOWN if any(part is UNKNOWN for part in parts) else "".join(map(str, parts))
    return UNKNOWN
