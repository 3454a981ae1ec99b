"""Overrides of the command line, refused before anything heavy is imported when they do not fit."""

import itertools
import re
import shlex
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
from mechxai.core.signature import read_signature
from mechxai.sweeps.config_checks import check_config, check_value
from mechxai.sweeps.config_files import LAUNCHERS, choices_of
from mechxai.sweeps.hydra_checks import check_hydra
from mechxai.sweeps.method_configs import store_missing_configs
from mechxai.sweeps.resolution import JOB_RESOLVERS, check_interpolations, resolved
from mechxai.sweeps.run_settings import RunSettings
from mechxai.sweeps.user_configs import CONFIG_FLAGS, UserConfigs, quoted, user_configs

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
    _check_characters(arguments)
    _check_dashes(arguments)
    parsed = _parsed(overrides)
    for override in parsed:
        _check_group_value(override)
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
    _check_added(config, parsed)
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
    parser, parsed = OverridesParser.create(), list[Any]()
    for override in overrides:
        try:
            parsed.append(parser.parse_override(override))
        except HydraException as error:
            raise ConfigError(f"The override {override!r} cannot be read", fix=_quoting(override)) from error
    return parsed


def _quoting(override: str) -> str:
    """How an override is written so that it can be read: the value in quotes, and the whole in the shell's."""
    key, equals, value = override.partition("=")
    written = _as_text(key, value)
    try:
        usable = bool(equals and value) and bool(OverridesParser.create().parse_override(written))
    except HydraException:
        usable = False
    return f"As a text it is written {shlex.quote(written)}" if usable else "Write key=value; quote lists for the shell"


def _as_text(key: str, value: str) -> str:
    """An override whose value is read as it stands."""
    return f"{key}={quoted(value)}" if {"'", '"', "\\", "$"} & set(value) else f'{key}="{value}"'


def _check_characters(arguments: Sequence[str]) -> None:
    """Refuses bytes that are not UTF-8, which Python passes on as halves of characters, and the character 0."""
    for argument in arguments:
        if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in argument):
            raise ConfigError(f"{argument!r} is not UTF-8 text", fix="Rename the file or folder, or make a link to it")


def _check_group_value(override: Any) -> None:
    """Refuses a value of a group that is no name; hydra does not."""
    key = override.get_key_element().lstrip("+~")
    if not key:
        raise ConfigError(f"The override {override.input_line!r} names no key", fix="Write key=value")
    if override.is_delete() or not (configs_dir() / key).is_dir():
        return
    values = override.sweep_iterator() if override.is_sweep_override() else (override.value(),)
    for value in values:
        names = value if isinstance(value, list) and value else [value]
        if any(not (isinstance(name, str) or hasattr(name, "quote")) for name in names):
            text = override.input_line.partition("=")[2]
            raise _unknown_choice(key, "null" if value is None else text, choices_of(key))


def _check_added(config: DictConfig, parsed: Sequence[Any]) -> None:
    """Refuses a key that ``+`` adds beside the known ones and that no other value refers to."""
    text = OmegaConf.to_yaml(config, resolve=False)
    settings = read_signature(RunSettings.__module__, RunSettings.__name__)
    known = [*(settings.parameters if settings else ()), "also", "hydra"]
    for override in parsed:
        key = override.get_key_element().lstrip("+~")
        root = re.split(r"[./@]", key)[0]
        if override.is_add() and root not in known and not (configs_dir() / root).is_dir() and f"${{{root}" not in text:
            raise ConfigError(unknown("key", root, known))


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
        fix=f"mechxai run -m runs one after the other; as one value, a list is '{key}=[{values}]', "
        f"a text {shlex.quote(_as_text(key, values))}",
    )


def _first_that_composes(combinations: Sequence[Sequence[str]], configs: UserConfigs) -> DictConfig:
    first_error: ConfigError | None = None
    with hydra.initialize_config_dir(str(configs.root), version_base="1.3", job_name="run"):
        for combination in combinations:
            try:
                return hydra.compose(
                    configs.name, overrides=[*combination, *configs.searched], return_hydra_config=True
                )
            except (HydraException, OmegaConfBaseException, ValueError, TypeError) as error:
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
    plain = _values(config)
    swept = [override for override in parsed if override.is_sweep_override()]
    check_config(plain, skip={override.get_key_element() for override in swept})
    for override in swept:
        errors = [check_value(plain, override.get_key_element(), value) for value in override.sweep_iterator()]
        first = errors[0] if errors else None
        if first is not None and None not in errors:
            raise first


def _values(config: DictConfig) -> dict[str, Any]:
    """The values without hydra's own, resolved where nothing in them refers to hydra, which is not set up yet."""
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    if "${hydra" not in OmegaConf.to_yaml(own, resolve=False):
        return resolved(own, allowed=JOB_RESOLVERS)
    content = OmegaConf.to_container(own, resolve=False)
    check_interpolations(content, allowed=JOB_RESOLVERS)
    return {str(key): value for key, value in content.items()} if isinstance(content, Mapping) else {}


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
