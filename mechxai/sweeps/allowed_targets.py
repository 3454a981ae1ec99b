"""What a configuration may make: the methods, tasks, models, metrics and trackers of MechXAI, and named plugins.

A configuration may come from elsewhere. It is resolved to plain data first, every ``_target_`` is then looked up in a
register, and only what stands there is called: a dotted name alone imports nothing.
"""

import functools
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mechxai._resources import configs_dir
from mechxai.core.errors import ConfigError
from mechxai.methods.catalog import catalog
from mechxai.sweeps.config_files import resolved_target

_TARGET = re.compile(r"^\s*_target_:\s*(?P<target>[\w.]+)\s*$", re.MULTILINE)
_MISSING = "???"  # the caller says what it needs
_RESERVED = ("_args_", "_recursive_", "_convert_")  # hydra's own; MechXAI's configurations need none


@functools.cache
def allowed_targets() -> frozenset[str]:
    """The dotted names of what a configuration may make: every method, and whatever a bundled configuration makes."""
    texts = (path.read_text(encoding="utf-8") for path in configs_dir().rglob("*.yaml"))
    bundled = {match["target"] for text in texts for match in _TARGET.finditer(text)}
    return frozenset(map(resolved_target, bundled)) | {card.target for card in catalog().values()}


def check_targets(node: object, where: str = "", *, plugins: Iterable[str] = ()) -> None:
    """Refuses a ``_target_`` that no register names, anywhere in a resolved configuration.

    Args:
        node: the configuration as plain data, or a part of it.
        where: dotted prefix of the part, for the error.
        plugins: packages named on the command line, whose own classes and functions may be made too.

    Raises:
        ConfigError: names the key.
    """
    plugins = tuple(plugins)
    for place, target, reserved in _targets(node, where):
        if reserved:
            raise ConfigError(f"{place}{reserved} is not allowed in a configuration of MechXAI", fix="Leave it out")
        if not _is_allowed(target, plugins):
            more = f", or a class of {', '.join(plugins)}" if plugins else ""
            raise ConfigError(
                f"{place}_target_={target!r} is not part of MechXAI",
                allowed=f"a method, task, model, metric or tracker of MechXAI{more}",
                fix="Name its module on the command line, as in plugins=[my_module]",
            )


def make(node: Any, *, plugins: Iterable[str] = ()) -> Any:
    """The object that a part of a resolved configuration describes; other data as it is.

    Args:
        node: plain data. A mapping with ``_target_`` is a call; ``_partial_`` leaves the call to the caller.
        plugins: as in `check_targets`.

    Raises:
        ConfigError: a target that is not allowed, or arguments that it does not take.
    """
    plugins = tuple(plugins)
    check_targets(node, plugins=plugins)
    return _made(node, plugins)


def plugin_overrides(overrides: Sequence[str]) -> list[str]:
    """The modules that ``plugins=[...]`` names among overrides of the command line."""
    names: list[str] = []
    for override in overrides:
        key, _, value = override.partition("=")
        if key.lstrip("+") == "plugins":
            names = [name.strip(" '\"") for name in value.strip("[]").split(",") if name.strip(" '\"")]
    return names


def check_plugins(configured: Sequence[str], named: Sequence[str]) -> None:
    """Refuses plugins that a configuration file names, since importing one runs its code.

    Raises:
        ConfigError: a plugin that is not on the command line.
    """
    hidden = [name for name in configured if name not in named]
    if hidden:
        raise ConfigError(
            f"plugins: {hidden[0]} comes from a configuration file, which may not import code",
            fix=f"Write plugins=[{','.join(configured)}] on the command line if you trust it",
        )


def _targets(node: object, where: str) -> Iterator[tuple[str, str, str]]:
    """Every call in a configuration.

    Yields:
        The dotted prefix, the target, and a key of hydra's that changes how a call is made, or an empty string.
    """
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield where, str(node["_target_"]), next((key for key in _RESERVED if key in node), "")
        for key, value in node.items():
            yield from _targets(value, f"{where}{key}.")
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _targets(value, f"{where}{index}.")


def _is_allowed(target: str, plugins: Sequence[str]) -> bool:
    if resolved_target(target) in allowed_targets():
        return True
    package = target.partition(".")[0]
    # what a plugin has only imported is not its own
    return package in plugins and str(getattr(_located(target), "__module__", "")).partition(".")[0] == package


def _located(target: str) -> Any:
    """The object of a dotted name whose package is allowed.

    Raises:
        ConfigError: there is no such object.
    """
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"_target_={target!r} does not exist: {error}") from error


def _made(node: Any, plugins: Sequence[str]) -> Any:
    if isinstance(node, Mapping):
        parts = {str(key): _made(value, plugins) for key, value in node.items() if value != _MISSING}
        if "_target_" not in parts:
            return parts
        target, partial = str(parts.pop("_target_")), parts.pop("_partial_", False)
        function = _located(resolved_target(target) if target.startswith("mechxai.") else target)
        return functools.partial(function, **parts) if partial else _called(function, target, parts)
    if isinstance(node, (list, tuple)):
        return [_made(item, plugins) for item in node]
    return node


def _called(function: Any, target: str, arguments: Mapping[str, Any]) -> Any:
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        raise ConfigError(f"{target.rpartition('.')[2]} does not take these settings: {error}") from error
    return function(**arguments)
