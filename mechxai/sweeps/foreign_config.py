"""What a run folder's configuration contributes: data for known groups and settings, nothing that runs code."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mechxai._resources import configs_dir
from mechxai.core.errors import ArtifactError, ConfigError
from mechxai.sweeps.allowed_targets import check_targets
from mechxai.sweeps.config_files import choices_of
from mechxai.sweeps.resolution import check_interpolations, resolved
from mechxai.sweeps.run_settings import RunSettings

_GROUPS = ("model", "task", "metric", "method", "tracker", "figure", "experiment", "sweep", "debug", "also")
_SETTINGS = tuple(name for name in RunSettings.__dataclass_fields__ if name != "plugins")


def read_folder_config(path: Path) -> dict[str, Any]:
    """A run folder's ``config.yaml`` as resolved plain data, with no target but those that MechXAI registers.

    Raises:
        ArtifactError: it cannot be read.
        ConfigError: a target or a resolver that is not allowed.
    """
    try:
        content = resolved(OmegaConf.load(path))
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise ArtifactError(f"{path} cannot be read: {str(error).splitlines()[0]}", fix="Run it again") from error
    check_targets(content)
    return content


def check_folder_overrides(overrides: Sequence[str]) -> None:
    """Refuses overrides from a run folder that are more than values of known groups and settings.

    Flags, keys of hydra, plugins, deleted keys, choices outside the bundled configurations, and interpolations that
    call code are refused.

    Raises:
        ConfigError: names the override.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(f"The folder's overrides cannot be read: {str(error).splitlines()[0]}") from error
    for override in parsed:
        key = override.get_key_element().lstrip("+~")
        root = key.partition(".")[0]
        text = override.input_line or ""
        if text.startswith(("-", "~")) or root not in (*_GROUPS, *_SETTINGS) or "@" in text.partition("=")[0]:
            raise ConfigError(
                f"{text!r} comes from a run folder, which may only set {', '.join((*_GROUPS, *_SETTINGS))}",
                fix="Write the command yourself if you trust it",
            )
        value = override.value()
        if (configs_dir() / key).is_dir() and str(value) not in choices_of(key):
            raise ConfigError(f"{text!r} comes from a run folder and is no bundled choice of {key}")
        check_interpolations(text, "an override")
        if "_target_" in text:
            check_targets({"_target_": str(value)} if key.endswith("_target_") else value, f"{key}.")
