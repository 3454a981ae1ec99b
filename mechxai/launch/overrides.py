"""Overrides of the command line; those that do not fit are refused before anything is loaded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mechxai._resources import configs_dir
from mechxai.choices import LAUNCHERS, choices_of
from mechxai.core.errors import ConfigError, nearest

_FLAGS_WITH_VALUE = (
    "--cfg",
    "-c",
    "--package",
    "-p",
    "--config-dir",
    "-cd",
    "--config-name",
    "-cn",
    "--config-path",
    "-cp",
    "--info",
    "-i",
)


def asked(arguments: Sequence[str]) -> list[str]:
    """The overrides among the arguments: what is no flag, and no flag's value."""
    overrides, skip = [], False
    for argument in arguments:
        if skip or argument.startswith("-"):
            skip = argument in _FLAGS_WITH_VALUE and not skip
            continue
        overrides.append(argument)
    return overrides


def quoted(path: Path) -> str:
    """A path as the value of an override, whatever letters are in it."""
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def check_overrides(arguments: Sequence[str]) -> str | None:
    """Refuses overrides that do not fit the configuration, naming the nearest key.

    Returns:
        The folder below which a sweep's table goes; None where one job was asked.

    Raises:
        ConfigError: an unknown key or choice, or an override that cannot be read.
    """
    overrides = asked(arguments)
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise ConfigError(
            f"The override {overrides} cannot be read",
            got=str(error).splitlines()[0],
            fix="write key=value; quote lists for the shell",
        ) from error
    try:
        single = [_first_choice(override) for override in parsed]
        for override in parsed:
            _check_choices(override)
    except (HydraException, StopIteration) as error:
        raise ConfigError(
            f"A sweep over {overrides} was asked", got=str(error), allowed="lists (a=1,2), choice(1,2), range(0,4)"
        ) from error
    multirun = any(argument == "-m" or (argument.startswith("--mu") and "=" not in argument) for argument in arguments)
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(configs_dir()), version_base="1.3", job_name="run"):
        if any(argument.partition("=")[0] in ("--config-dir", "-cd") for argument in arguments):
            return "outputs/sweeps/own" if multirun else None  # the user's own choices are known to hydra alone
        try:
            config = hydra.compose("run", overrides=single, return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise _explained(error, single) from error
    if not multirun and config.hydra.mode != RunMode.MULTIRUN:
        return None
    return f"{config.output}/sweeps/{config.name}"


def _check_choices(override: Any) -> None:
    """Every choice that a sweep makes of a group, not only the first."""
    group = override.get_key_element().lstrip("+~")
    if not override.is_sweep_override() or not (configs_dir() / group).is_dir():
        return
    choices = choices_of(group)
    for choice in override.sweep_string_iterator():
        if choice != "null" and choice not in choices:
            raise _no_choice(group, choice, choices)


def _no_choice(group: str, choice: str, choices: Sequence[str]) -> ConfigError:
    return ConfigError(f"{group}={choice} was asked", got="no such choice", allowed=nearest(choice, choices))


def _first_choice(override: Any) -> str:
    """A sweep's override with its first value, so that it composes; others as they are."""
    if not override.is_sweep_override():
        return override.input_line
    return f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"


def _explained(error: Exception, overrides: Sequence[str]) -> ConfigError:
    keys = [override.lstrip("+~").partition("=")[0] for override in overrides]
    plain = [override for override in overrides if "/" not in override.partition("=")[0] and _is_group(override)]
    known = _known_keys(plain)
    unknown = [key for key in keys if key not in known and not key.startswith("hydra")]
    message = str(error).splitlines()
    launcher = next((one.partition("=")[2] for one in overrides if one.startswith("hydra/launcher=")), None)
    if launcher is not None and launcher in " ".join(message):
        return ConfigError(
            f"hydra/launcher={launcher} was asked",
            got="no such launcher is installed",
            allowed=nearest(launcher, LAUNCHERS),
            fix=f"pip install 'mechxai[{LAUNCHERS[launcher]}]'" if LAUNCHERS.get(launcher) else None,
        )
    if unknown:
        return ConfigError(f"The key {unknown[0]!r} was asked", got="no such key", allowed=nearest(unknown[0], known))
    for override in plain:
        group, _, choice = override.partition("=")
        choices = choices_of(group)
        if choices and choice not in choices:
            return _no_choice(group, choice, choices)
    return ConfigError("The configuration cannot be composed", got=" ".join(message[:3]))


def _is_group(override: str) -> bool:
    return (configs_dir() / override.partition("=")[0]).is_dir()


def _known_keys(overrides: Sequence[str]) -> list[str]:
    usable = [
        override for override in overrides if override.partition("=")[2] in choices_of(override.partition("=")[0])
    ]
    composed = OmegaConf.to_container(hydra.compose("run", overrides=usable), resolve=False)
    found: list[str] = ["experiment", "sweep", "debug"]

    def walk(node: object, prefix: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                found.append(f"{prefix}{key}")
                walk(value, f"{prefix}{key}.")

    walk(composed, "")
    return found
