"""Overrides of the command line, refused before anything heavy is imported when they do not fit."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
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
from mechxai.core.errors import ConfigError, nearest, unknown
from mechxai.sweeps.config_checks import check_config, check_value
from mechxai.sweeps.config_files import LAUNCHERS, choices_of
from mechxai.sweeps.hydra_checks import check_hydra
from mechxai.sweeps.method_configs import store_missing_configs
from mechxai.sweeps.user_configs import CONFIG_FLAGS, UserConfigs, user_configs

_FLAGS_WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--info", "-i", *CONFIG_FLAGS)
_DASHED = re.compile(r"-[a-zA-Z][\w./]+=")
_TRIED = 64  # combinations of a sweep that are composed before the sweep is refused


def override_arguments(arguments: Sequence[str]) -> list[str]:
    """The overrides among the arguments: all but flags and flags' values."""
    return split_arguments(arguments)[1]


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags with their values, and overrides; hydra wants them in this order."""
    flags: list[str] = []
    overrides: list[str] = []
    is_value = False
    for argument in arguments:
        if is_value or argument.startswith("-"):
            is_value = argument in _FLAGS_WITH_VALUE and not is_value
            flags.append(argument)
        else:
            overrides.append(argument)
    return flags, overrides


def check_overrides(arguments: Sequence[str]) -> Path | None:
    """Refuses overrides that do not fit the configuration: unknown keys and choices, values of the wrong type.

    A sweep is refused where none of its combinations composes; a single combination that does not is a failed job.

    Returns:
        The folder of a sweep's table; None for one job.

    Raises:
        ConfigError: names the key or value, and the nearest that exists.
    """
    overrides, configs = override_arguments(arguments), user_configs(arguments)
    _check_dashes(arguments)
    parsed = _parsed(overrides)
    try:
        combinations = list(itertools.islice(_combinations(parsed), _TRIED))
        for override in parsed if configs is None else ():
            _check_choices(override)
    except (HydraException, StopIteration) as error:
        raise ConfigError(
            f"The sweep over {overrides} cannot be read: {error}", allowed="lists (a=1,2), choice(1,2), range(0,4)"
        ) from error
    multirun = any(argument == "-m" or (argument.startswith("--mu") and "=" not in argument) for argument in arguments)
    if not multirun and configs is None:
        _check_single(parsed)
    store_missing_configs()
    GlobalHydra.instance().clear()
    single = [override.input_line for override in parsed if not override.is_sweep_override()]
    check_hydra(_first_that_composes([single, *combinations], configs or UserConfigs()), overrides)
    config = _first_that_composes(combinations, configs or UserConfigs())
    check_hydra(config, overrides)
    _check_values(config, parsed)
    if not multirun and config.hydra.mode != RunMode.MULTIRUN:
        return None
    return (configs or UserConfigs()).sweep_folder(config)


def composition_error(error: Exception, overrides: Sequence[str]) -> ConfigError:
    """The reason why overrides do not compose, for the user. Hydra must be initialised."""
    keys = [override.partition("=")[0].lstrip("~") for override in overrides if not override.startswith("+")]
    groups = [override for override in overrides if "/" not in override.partition("=")[0] and _is_group(override)]
    known = _known_keys(groups)
    unknown_keys = [key for key in keys if key not in known and not key.startswith("hydra")]
    message = str(error).splitlines()
    launcher = next((item.partition("=")[2] for item in overrides if item.startswith("hydra/launcher=")), None)
    if launcher is not None and launcher in " ".join(message):
        return ConfigError(
            f"The launcher {launcher!r} is not installed. {nearest(launcher, LAUNCHERS)}",
            fix=f"pip install 'mechxai[{LAUNCHERS[launcher]}]'" if LAUNCHERS.get(launcher) else None,
        )
    if unknown_keys and known:
        return ConfigError(unknown("key", unknown_keys[0], known))
    for override in groups:
        group, _, choice = override.partition("=")
        choices = choices_of(group)
        if choices and choice not in choices and f"{group}/{choice}" in str(error):  # user folders may have more
            return _unknown_choice(group, choice, choices)
    return ConfigError(f"The configuration cannot be composed: {' '.join(message[:3])}")


def _parsed(overrides: Sequence[str]) -> list[Any]:
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(
            f"The overrides {list(overrides)} cannot be read: {str(error).splitlines()[0]}",
            fix="Write key=value; quote lists for the shell",
        ) from error


def _check_dashes(arguments: Sequence[str]) -> None:
    for flag in arguments:
        if _DASHED.match(flag) and flag.partition("=")[0] not in _FLAGS_WITH_VALUE:
            raise ConfigError(f"{flag} has a dash before a key", fix="Write key=value, and -m by itself")


def _check_single(parsed: Sequence[Any]) -> None:
    """Refuses lists of values for a single run, unless an override of hydra's own makes it a sweep."""
    if any(override.get_key_element().startswith(("hydra.mode", "hydra/sweeper", "sweep")) for override in parsed):
        return
    several = next((override for override in parsed if override.is_sweep_override()), None)
    if several is None:
        return
    key, values = several.get_key_element(), ",".join(several.sweep_string_iterator())
    raise ConfigError(
        f"{several.input_line} gives several values to one run",
        fix=f"mechxai run -m runs one after the other; as one value, a list is '{key}=[{values}]'",
    )


def _first_that_composes(combinations: Sequence[Sequence[str]], configs: UserConfigs) -> DictConfig:
    first_error: ConfigError | None = None
    with hydra.initialize_config_dir(str(configs.root), version_base="1.3", job_name="run"):
        for combination in combinations:
            try:
                return hydra.compose(
                    configs.name, overrides=[*combination, *configs.searched], return_hydra_config=True
                )
            except (HydraException, OmegaConfBaseException) as error:
                first_error = first_error or composition_error(error, combination)
    raise first_error or ConfigError("The sweep has a list without a value", fix="Give at least one value")


def _combinations(parsed: Sequence[Any]) -> Iterator[list[str]]:
    """The combinations that a sweep composes; of a key that no other depends on, the first value alone."""
    return (list(combination) for combination in itertools.product(*map(_alternatives, parsed)))


def _alternatives(override: Any) -> list[str]:
    if not override.is_sweep_override():
        return [override.input_line]
    key = override.get_key_element()
    values = (f"{key}={value}" for value in override.sweep_string_iterator())
    return [next(values)] if "." in key else list(values)


def _check_choices(override: Any) -> None:
    """Checks every choice that a sweep makes of a group, not only the first."""
    group = override.get_key_element().lstrip("+~")
    if not override.is_sweep_override() or not (configs_dir() / group).is_dir():
        return
    choices = choices_of(group)
    for choice in override.sweep_string_iterator():
        if choice not in choices:
            raise _unknown_choice(group, choice, choices)


def _check_values(config: DictConfig, parsed: Sequence[Any]) -> None:
    """Checks the composed values. Of a key's values in a sweep one must fit: a job with another fails by itself."""
    content = OmegaConf.to_container(config, resolve=False)
    if not isinstance(content, Mapping):
        return
    plain: Mapping[str, Any] = {str(key): value for key, value in content.items() if key != "hydra"}
    swept = [override for override in parsed if override.is_sweep_override()]
    check_config(plain, skip={override.get_key_element() for override in swept})
    for override in swept:
        errors = [check_value(plain, override.get_key_element(), value) for value in override.sweep_iterator()]
        first = errors[0] if errors else None
        if first is not None and None not in errors:
            raise first


def _unknown_choice(group: str, choice: str, choices: Sequence[str]) -> ConfigError:
    return ConfigError(unknown(group, choice, choices), fix=f"See mechxai {group}s" if group in _LISTED else None)


_LISTED = ("method", "model", "task", "experiment")  # groups that have a command


def _is_group(override: str) -> bool:
    return (configs_dir() / override.partition("=")[0]).is_dir()


def _known_keys(overrides: Sequence[str]) -> list[str]:
    """Dotted keys of the bundled configuration under the given choices."""
    usable = [
        override for override in overrides if override.partition("=")[2] in choices_of(override.partition("=")[0])
    ]
    try:
        composed = OmegaConf.to_container(hydra.compose("run", overrides=usable), resolve=False)
    except HydraException:  # a user's configuration stands in place of the bundled one
        return []
    return ["experiment", "sweep", "debug", *_dotted_keys(composed, "")]


def _dotted_keys(node: object, prefix: str) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _dotted_keys(value, f"{prefix}{key}.")
