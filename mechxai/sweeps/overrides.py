"""Overrides of the command line; those that do not fit are refused before anything is loaded."""

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mechxai._resources import configs_dir
from mechxai.core.errors import ConfigError, nearest
from mechxai.sweeps.config_files import LAUNCHERS, choices_of
from mechxai.sweeps.user_configs import CONFIG_FLAGS, UserConfigs, user_configs

_FLAGS_WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--info", "-i", *CONFIG_FLAGS)
_DASHED = re.compile(r"-[a-zA-Z][\w./]+=")
_TRIED = 64  # combinations of a sweep, before it is refused because none of them composes


def override_arguments(arguments: Sequence[str]) -> list[str]:
    """The overrides among the arguments: what is no flag, and no flag's value."""
    overrides, skip = [], False
    for argument in arguments:
        if skip or argument.startswith("-"):
            skip = argument in _FLAGS_WITH_VALUE and not skip
            continue
        overrides.append(argument)
    return overrides


def check_overrides(arguments: Sequence[str]) -> Path | None:
    """Refuses overrides that do not fit the configuration, naming the nearest key.

    A sweep is refused where none of its combinations composes; single ones that do not are told as failed jobs.

    Returns:
        The folder below which a sweep's table goes; None where one job was asked.

    Raises:
        ConfigError: an unknown key or choice, or an override that cannot be read.
    """
    overrides, own = override_arguments(arguments), user_configs(arguments)
    _check_dashes(arguments)
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise ConfigError(
            f"The override {overrides} cannot be read",
            got=str(error).splitlines()[0],
            fix="write key=value; quote lists for the shell",
        ) from error
    try:
        some = list(itertools.islice(_combinations(parsed), _TRIED))
        for override in parsed if own is None else ():
            _check_choices(override)
    except (HydraException, StopIteration) as error:
        raise ConfigError(
            f"A sweep over {overrides} was asked", got=str(error), allowed="lists (a=1,2), choice(1,2), range(0,4)"
        ) from error
    multirun = any(argument == "-m" or (argument.startswith("--mu") and "=" not in argument) for argument in arguments)
    if not multirun and own is None:
        _check_single(parsed)
    GlobalHydra.instance().clear()
    try:
        config = _first_that_composes(some, own or UserConfigs())
    except ConfigError:
        if own is None:
            raise
        return own.sweep_folder(None) if multirun else None  # hydra, which knows more of them, tells
    if not multirun and config.hydra.mode != RunMode.MULTIRUN:
        return None
    return (own or UserConfigs()).sweep_folder(config)


def _check_dashes(arguments: Sequence[str]) -> None:
    for flag in arguments:
        if _DASHED.match(flag) and flag.partition("=")[0] not in _FLAGS_WITH_VALUE:
            raise ConfigError(f"{flag} was asked", got="a dash before a key", fix="write key=value, and -m by itself")


def _check_single(parsed: Sequence[Any]) -> None:
    """Refuses lists of values where one run was asked, unless hydra is told to sweep by a setting of its own."""
    if any(override.get_key_element().startswith(("hydra.mode", "hydra/sweeper", "sweep")) for override in parsed):
        return
    several = next((one for one in parsed if one.is_sweep_override()), None)
    if several is None:
        return
    key, values = several.get_key_element(), ",".join(several.sweep_string_iterator())
    raise ConfigError(
        f"{several.input_line} was asked of one run",
        got="several values",
        fix=f"mechxai run -m runs one after the other; as one value, a list is '{key}=[{values}]'",
    )


def _first_that_composes(combinations: Sequence[Sequence[str]], own: UserConfigs) -> DictConfig:
    told: ConfigError | None = None
    with hydra.initialize_config_dir(str(own.root), version_base="1.3", job_name="run"):
        for combination in combinations:
            try:
                return hydra.compose(own.name, overrides=[*combination, *own.searched], return_hydra_config=True)
            except (HydraException, OmegaConfBaseException) as error:
                told = told or composition_error(error, combination)
    raise told or ConfigError("A sweep was asked", got="a list without a value", fix="give at least one value")


def _combinations(parsed: Sequence[Any]) -> Iterator[list[str]]:
    """The product of what a sweep chooses, but of single values, which no key depends on, the first alone."""
    choices = [_choices_of(override) for override in parsed]
    return (list(one) for one in itertools.product(*choices))


def _choices_of(override: Any) -> list[str]:
    if not override.is_sweep_override():
        return [override.input_line]
    key = override.get_key_element()
    found = (f"{key}={value}" for value in override.sweep_string_iterator())
    return [next(found)] if "." in key else list(found)


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


def composition_error(error: Exception, overrides: Sequence[str]) -> ConfigError:
    """Why overrides do not compose, in a sentence for whoever gave them. Hydra must be set up."""
    keys = [override.partition("=")[0].lstrip("~") for override in overrides if not override.startswith("+")]
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
    if unknown and known:
        return ConfigError(f"The key {unknown[0]!r} was asked", got="no such key", allowed=nearest(unknown[0], known))
    for override in plain:
        group, _, choice = override.partition("=")
        choices = choices_of(group)
        if choices and choice not in choices and f"{group}/{choice}" in str(error):  # own folders may have more
            return _no_choice(group, choice, choices)
    return ConfigError("The configuration cannot be composed", got=" ".join(message[:3]))


def _is_group(override: str) -> bool:
    return (configs_dir() / override.partition("=")[0]).is_dir()


def _known_keys(overrides: Sequence[str]) -> list[str]:
    usable = [
        override for override in overrides if override.partition("=")[2] in choices_of(override.partition("=")[0])
    ]
    try:
        composed = OmegaConf.to_container(hydra.compose("run", overrides=usable), resolve=False)
    except HydraException:  # another's configuration stands in place of the bundled one
        return []
    found: list[str] = ["experiment", "sweep", "debug"]

    def walk(node: object, prefix: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                found.append(f"{prefix}{key}")
                walk(value, f"{prefix}{key}.")

    walk(composed, "")
    return found
