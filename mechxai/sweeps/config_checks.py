"""The values of a composed configuration checked against the annotations of what they set. Imports no torch."""

from collections.abc import Collection, Mapping
from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mechxai.core.counts import MOST_PROMPTS
from mechxai.core.errors import ConfigError, MechXAIError, unknown
from mechxai.core.signature import REQUIRED, Parameter, Signature, read_signature
from mechxai.core.site_table import site_name
from mechxai.core.source import UNKNOWN
from mechxai.sweeps.config_files import choices_of, resolved_target
from mechxai.sweeps.folder_names import check_folder
from mechxai.sweeps.run_settings import MAX_SEED, FigureSettings, MetricSettings, RunSettings

_ROOT = "mechxai."
_SITES = "site"  # fields of this name take names of sites
_PLUGINS = "mechxai.methods"  # the group of entry points of packages with methods
_METRIC = "metric"  # fields of this name take a metric
_BUILT = ("model", "task", "method", "tracker")  # groups whose choice names what is built
_PLAIN_GROUPS = {"figure": FigureSettings, "metric": MetricSettings}
_FILES = ("path", "name", "lens", "cache")  # fields of these names take names of files and folders
_RANGES = {"seed": (0, MAX_SEED), "n": (1, MOST_PROMPTS)}  # of whole numbers with these names


def check_config(config: Mapping[str, Any], *, skip: Collection[str] = ()) -> None:
    """Refuses a value that its field or argument does not take, anywhere in a configuration but at the keys to skip.

    Raises:
        ConfigError: with the key, the value and what is allowed.
        SiteError: an unknown site, with the nearest.
    """
    for key, parameter in _run_parameters().items():
        if key in config and key not in skip:
            _check(key, config[key], parameter)
    RunSettings.from_config({key: value for key, value in config.items() if key not in skip})
    _check_plugins_exist(config.get("plugins", ()))
    _check_groups(config)
    for path, node in _targets(config, ""):
        signature = _signature_of(node)
        parameters = signature.parameters if signature else {}
        if signature is not None and signature.complete:
            _check_keys(path, node, parameters)
        for key, value in node.items():
            if key in parameters and f"{path}{key}" not in skip:
                _check(f"{path}{key}", value, parameters[key])


def check_value(config: Mapping[str, Any], key: str, value: object) -> MechXAIError | None:
    """The error of a value for a dotted key of a configuration; None where it fits, or nothing is known of the key."""
    *path, last = key.lstrip("+~").split(".")
    node: Any = config
    for part in path:
        node = node.get(part) if isinstance(node, Mapping) else None
    parameters = parameters_of(node) if isinstance(node, Mapping) and path else _run_parameters()
    try:
        if last in parameters:
            _check(key, _plain(value), parameters[last])
    except MechXAIError as error:
        return error
    return None


def parameters_of(node: Mapping[str, Any]) -> dict[str, Parameter]:
    """What the target of a node takes; empty for a target outside the package."""
    signature = _signature_of(node)
    return signature.parameters if signature else {}


def _signature_of(node: Mapping[str, Any]) -> Signature | None:
    target = str(node.get("_target_") or "")
    if not target.startswith(_ROOT):
        return None
    module, _, name = resolved_target(target).rpartition(".")
    return read_signature(module, name)


def _check_plugins_exist(plugins: object) -> None:
    """Refuses plugins that cannot be found, without importing anything."""
    for name in plugins if isinstance(plugins, (list, tuple)) else (plugins,):
        if not _exists(str(name)):
            raise ConfigError(
                f"There is no module {str(name)[:80]!r}",
                fix="Give a module that is installed or lies in the current folder",
            )


def _exists(plugin: str) -> bool:
    package = plugin.partition(".")[0]
    found = package.isidentifier() and (find_spec(package) or PathFinder.find_spec(package, [str(Path.cwd())]))
    return bool(found) or any(point.name == plugin for point in entry_points(group=_PLUGINS))


def _check_groups(config: Mapping[str, Any]) -> None:
    """Refuses groups that name nothing that can be built."""
    for group in _BUILT:
        node = config.get(group)
        if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
            raise ConfigError(f"{group} names nothing that can be built", fix=f"Choose one: {group}=NAME")
    _check_plain_groups(config)
    also = config.get("also", {})
    if not isinstance(also, Mapping):
        raise ConfigError(f"also={also!r} names no methods", fix="Write +method@also.LABEL=NAME")
    for label, node in also.items():
        if node is not None and not (isinstance(node, Mapping) and isinstance(node.get("_target_"), str)):
            raise ConfigError(f"also.{label} names no method", fix=f"also.{label}=null leaves it out")


def _check_plain_groups(config: Mapping[str, Any]) -> None:
    for group, settings in _PLAIN_GROUPS.items():
        signature = read_signature(settings.__module__, settings.__name__)
        node = config.get(group, {})
        if not isinstance(node, Mapping) or signature is None:
            raise ConfigError(f"{group}={node!r} is not a choice of {group}", fix=f"Choose one: {group}=NAME")
        _check_keys(f"{group}.", node, signature.parameters)
        for key, value in node.items():
            _check(f"{group}.{key}", value, signature.parameters[key])


def _check_keys(path: str, node: Mapping[str, Any], parameters: Collection[str]) -> None:
    for key in node:
        if key not in parameters and not str(key).startswith("_"):
            raise ConfigError(unknown("key", f"{path}{key}", [f"{path}{name}" for name in parameters] or ["no key"]))


def _run_parameters() -> dict[str, Parameter]:
    signature = read_signature(RunSettings.__module__, RunSettings.__name__)
    return signature.parameters if signature else {}


def _targets(node: object, path: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Dotted prefix and node, of every node with a target."""
    if not isinstance(node, Mapping):
        return []
    here: list[tuple[str, Mapping[str, Any]]] = [(path, node)] if "_target_" in node else []
    return here + [pair for key, value in node.items() for pair in _targets(value, f"{path}{key}.")]


def _check_metric(key: str, value: object) -> None:
    """Refuses what is neither a metric's name nor something that makes one."""
    names = choices_of("metric")
    if isinstance(value, Mapping) and "_target_" in value:
        return
    if not isinstance(value, str):
        raise ConfigError(f"{key}={value!r} is not the name of a metric", allowed=names)
    if value not in names and "${" not in value:
        raise ConfigError(unknown("metric", value, names))


def _check(key: str, value: object, parameter: Parameter) -> None:
    if parameter.name == _METRIC and not (value is None and "none" in parameter.annotation.types):
        _check_metric(key, value)
    if _is_open(value, parameter):
        return
    parameter.annotation.check(key, value)
    _check_range(key, value, parameter)
    _check_not_empty(key, value, parameter)
    if parameter.name in _FILES and isinstance(value, str) and value:
        check_folder(key, value)
    if parameter.name == _SITES:
        for name in value if isinstance(value, (list, tuple)) else (value,):
            if not isinstance(name, str):
                raise ConfigError(f"{key}={value!r} is not the name of a site")
            site_name(name)


def _check_range(key: str, value: object, parameter: Parameter) -> None:
    if parameter.name in _RANGES and isinstance(value, int):
        low, high = _RANGES[parameter.name]
        if not low <= value <= high:
            raise ConfigError(f"{key}={value} is out of range", allowed=f"{low} to {high}")


def _check_not_empty(key: str, value: object, parameter: Parameter) -> None:
    """Refuses an empty list, which would ask for nothing, unless it is the default."""
    default = parameter.default
    if not (isinstance(value, (list, tuple)) and not value) or parameter.annotation.items is None:
        return
    if default is REQUIRED or (default is not UNKNOWN and default not in ((), [])):
        takes_null = "none" in parameter.annotation.types
        raise ConfigError(f"{key}=[] is empty", fix=f"Write {key}=null, or leave it out" if takes_null else None)


def _is_open(value: object, parameter: Parameter) -> bool:
    """Whether a value is made by something else: a nested target, an interpolation, or one still missing."""
    if isinstance(value, Mapping):
        items = parameter.annotation.items
        return parameter.annotation.open or (items is not None and items.open)
    return isinstance(value, str) and ("${" in value or value == "???")


def _plain(value: object) -> object:
    """A parsed override's value as Python has it: a quoted string is its text."""
    return str(getattr(value, "text", value)) if hasattr(value, "quote") else value
