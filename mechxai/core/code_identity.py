"""What identifies code: instructions, defaults, closure and the globals used; the name, in an installed package."""

import builtins
import hashlib
import inspect
import site
import sys
import sysconfig
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, cast

CODE = (type, ModuleType, BuiltinFunctionType, FunctionType, MethodType, partial)
"""The kinds of value that `describe_code` takes."""

_OF_EVERY_CLASS = frozenset(
    {
        *("__dict__", "__weakref__", "__module__", "__doc__", "__firstlineno__", "__static_attributes__"),
        *("_abc_impl", "__abstractmethods__", "__annotations__", "__annotate_func__", "__annotations_cache__"),
        *("__dataclass_fields__", "__dataclass_params__", "__match_args__", "__parameters__", "__orig_bases__"),
    }
)


def describe_code(value: Any, hashed: Callable[[object], str]) -> str:
    """A text that two pieces of code share only if they do the same.

    Args:
        value: a function, method, partial, class or module.
        hashed: gives the hash of the values that the code holds or uses.
    """
    if isinstance(value, partial):
        whole = cast("partial[Any]", value)
        return f"partial {hashed([whole.func, whole.args, whole.keywords])}"
    if isinstance(value, MethodType):
        return f"method {hashed([value.__func__, value.__self__])}"
    if isinstance(value, ModuleType):
        return f"module {value.__name__} {'' if is_installed(value.__name__) else _file_hash(value)}"
    name = f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, type):
        return name if is_installed(value.__module__) else f"class {value.__qualname__} {hashed(_class_parts(value))}"
    return name + hashed(_function_parts(value))


def _class_parts(kind: type) -> list[object]:
    """The bases, functions and values of a user's class."""
    own = {name: value for name, value in vars(kind).items() if name not in _OF_EVERY_CLASS}
    plain = {name: getattr(value, "__func__", getattr(value, "fget", value)) for name, value in own.items()}
    return [list(kind.__bases__), plain]


def _function_parts(function: Any) -> list[object]:
    if isinstance(function, BuiltinFunctionType):
        owner = function.__self__
        return [None if isinstance(owner, ModuleType) else owner]
    cells = [_content(cell) for cell in function.__closure__ or ()]
    wrapped = getattr(function, "__wrapped__", None)
    if is_installed(str(function.__globals__.get("__name__"))):
        return [function.__code__.co_qualname, cells, wrapped]
    defaults = [function.__defaults__, function.__kwdefaults__]
    return [_code_parts(function.__code__), *defaults, cells, wrapped, _used_globals(function)]


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not yet assigned
        return None


def _code_parts(code: CodeType) -> list[object]:
    """The instructions, names and constants of a function's code, and of functions inside it; no line numbers."""
    constants = [_code_parts(value) if inspect.iscode(value) else _constant(value) for value in code.co_consts]
    return [code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants]


def _constant(value: object) -> str:
    if isinstance(value, frozenset):
        return f"frozenset {sorted(map(repr, cast('frozenset[object]', value)))}"
    return f"{type(value).__name__} {value!r}"


def _used_globals(function: FunctionType) -> dict[str, object]:
    """Name -> value of the globals that a function may use; Python's own are left out."""
    names, values = sorted(set(_names(function.__code__))), function.__globals__
    return {name: values[name] for name in names if name in values and not hasattr(builtins, name)}


def _names(code: CodeType) -> Iterator[str]:
    """The names that a function's code, and functions inside it, look up.

    Yields:
        Name by name.
    """
    yield from code.co_names
    for value in code.co_consts:
        if inspect.iscode(value):
            yield from _names(value)


@cache
def is_installed(module: str) -> bool:
    """Whether a module belongs to Python, to this package or to an installed one, whose version names its code."""
    package = module.partition(".")[0]
    if package == "__main__":
        return False
    if package in sys.stdlib_module_names or package == "mechxai":
        return True
    file = getattr(sys.modules.get(package), "__file__", None)
    return file is not None and any(Path(file).is_relative_to(folder) for folder in _installed_folders())


@cache
def _installed_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = [paths["purelib"], paths["platlib"], paths["stdlib"], *site.getsitepackages(), site.getusersitepackages()]
    return tuple({*folders, *(path for path in sys.path if path.endswith(("site-packages", "dist-packages")))})


def _file_hash(module: ModuleType) -> str:
    """A hash of a module's file; of its name where it has none."""
    file = getattr(module, "__file__", None)
    content = Path(file).read_bytes() if file and Path(file).is_file() else module.__name__.encode()
    return hashlib.blake2b(content, digest_size=16).hexdigest()
