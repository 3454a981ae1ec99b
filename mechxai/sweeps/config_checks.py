"""The values of a composed configuration checked against the annotations of what they set. Imports no torch."""

from collections.abc import Collection, Mapping
from typing import Any

from mechxai.core.errors import ConfigError, MechXAIError
from mechxai.core.signature import Parameter, read_signature
from mechxai.core.site_table import site_name
from mechxai.sweeps.config_files import resolved_target
from mechxai.sweeps.run_settings import RunSettings

_ROOT = "mechxai."
_SITES = "site"  # fields of this name take names of sites


def check_config(config: Mapping[str, Any], *, skip: Collection[str] = ()) -> None:
    """Refuses a value that its field or argument does not take, anywhere in a configuration but at the keys to skip.

    Raises:
        ConfigError: with the key, the value and what is allowed.
        SiteError: an unknown site, with the nearest.
    """
    for path, node in _targets(config, ""):
        parameters = parameters_of(node)
        for key, value in node.items():
            if key in parameters and f"{path}{key}" not in skip:
                _check(f"{path}{key}", value, parameters[key])
    for key, parameter in _run_parameters().items():
        if key in config and key not in skip:
            _check(key, config[key], parameter)
    RunSettings.from_config({key: value for key, value in config.items() if key not in skip})


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
    target = str(node.get("_target_") or "")
    if not target.startswith(_ROOT):
        return {}
    module, _, name = resolved_target(target).rpartition(".")
    signature = read_signature(module, name)
    return signature.parameters if signature else {}


def _run_parameters() -> dict[str, Parameter]:
    signature = read_signature(RunSettings.__module__, RunSettings.__name__)
    return signature.parameters if signature else {}


def _targets(node: object, path: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Dotted prefix and node, of every node with a target."""
    if not isinstance(node, Mapping):
        return []
    here: list[tuple[str, Mapping[str, Any]]] = [(path, node)] if "_target_" in node else []
    return here + [pair for key, value in node.items() for pair in _targets(value, f"{path}{key}.")]


def _check(key: str, value: object, parameter: Parameter) -> None:
    if _is_open(value):
        return
    parameter.annotation.check(key, value)
    if parameter.name == _SITES:
        for name in value if isinstance(value, (list, tuple)) else (value,):
            if not isinstance(name, str):
                raise ConfigError(f"{key}={value!r} is not the name of a site")
            site_name(name)


def _is_open(value: object) -> bool:
    """Whether a value is made by something else: a nested target, an interpolation, or one still missing."""
    return isinstance(value, Mapping) or (isinstance(value, str) and ("${" in value or value == "???"))


def _plain(value: object) -> object:
    """A parsed override's value as Python has it: a quoted string is its text."""
    return str(getattr(value, "text", value)) if hasattr(value, "quote") else value
