"""Resolving a configuration to plain data: interpolations that can call code do not exist, environment is not recorded.

Of OmegaConf's resolvers a run folder may use ``oc.env``, ``oc.select`` and ``oc.decode``, and nobody ``oc.create``,
which would make a node that no check has seen. What a run writes to disk or sends to a tracker holds
``${oc.env:NAME}`` in place of its value, and ``***`` in place of keys that look like secrets.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from mechxai.core.errors import ConfigError
from mechxai.core.secrets import masked, masked_override

ALLOWED_RESOLVERS = ("oc.env", "oc.select", "oc.decode")
JOB_RESOLVERS = (*ALLOWED_RESOLVERS, "oc.dict.keys", "oc.dict.values", "hydra", "now", "python_version")
_OPEN = re.compile(r"\$\{\s*(?P<name>[\w.]+)\s*:")
_ENVIRONMENT = re.compile(r"\$\{\s*oc\.env\s*:\s*(?P<name>\w+)")


@dataclass(frozen=True)
class Record:
    """What a run writes down of its configuration.

    Attributes:
        content: the configuration as plain data, without secrets and values of the environment.
        files: file name -> YAML, for the run's folder.
        masks: value of the environment -> the text that stands for it.
    """

    content: dict[str, Any]
    files: dict[str, str]
    masks: dict[str, str]

    @property
    def name(self) -> str:
        """The run's name, which is also a folder: ``env-NAME`` in place of a value of the environment."""
        return _ENVIRONMENT.sub(r"env-\g<name>", str(self.content["name"])).replace("}", "")

    @classmethod
    def of(cls, config: DictConfig, overrides: Sequence[str], *, in_clear: bool = False) -> "Record":
        """The record of a configuration and of the overrides that composed it.

        Args:
            config: as composed.
            overrides: of the command line.
            in_clear: values of the environment are recorded as they are; secrets never are.
        """
        masks = {} if in_clear else environment_values(config)
        with nullcontext() if in_clear else environment_unresolved():
            content = masked(resolved(config, allowed=JOB_RESOLVERS), masks)
        written = masked(OmegaConf.to_container(config, resolve=False))
        files = {
            "config.yaml": OmegaConf.to_yaml(written),
            "overrides.yaml": OmegaConf.to_yaml([masked_override(override) for override in overrides]),
        }
        return cls(content, files, masks)


def resolved(config: Any, *, allowed: Sequence[str] = ALLOWED_RESOLVERS) -> dict[str, Any]:
    """A configuration, without hydra's part, as plain data.

    Args:
        config: the configuration.
        allowed: the resolvers that it may use.

    Raises:
        ConfigError: an interpolation that cannot be resolved, or one with a resolver that is not allowed.
    """
    unresolved = OmegaConf.to_container(config, resolve=False) if OmegaConf.is_config(config) else config
    check_interpolations(unresolved, allowed=allowed)
    node = config if isinstance(config, (DictConfig, ListConfig)) else OmegaConf.create(config)
    try:
        with _without_create():
            content = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        key, reason = error.full_key or "The configuration", str(error).splitlines()[0]
        raise ConfigError(f"{key} cannot be resolved: {reason}") from error
    return {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}


def check_interpolations(node: object, where: str = "", *, allowed: Sequence[str] = ALLOWED_RESOLVERS) -> None:
    """Refuses interpolations whose resolver is not allowed, in keys and values.

    Raises:
        ConfigError: names the key and the resolver.
    """
    for place, text in _texts(node, where):
        for match in _OPEN.finditer(text):
            if match["name"] not in allowed:
                raise ConfigError(f"{place} uses the resolver {match['name']!r}", allowed=", ".join(allowed))


@contextmanager
def environment_unresolved() -> Iterator[None]:
    """Within the context, ``${oc.env:NAME}`` resolves to its own text."""
    OmegaConf.register_new_resolver("oc.env", lambda name, *_: f"${{oc.env:{name}}}", replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def environment_values(config: Any) -> dict[str, str]:
    """Value -> text that stands for it, of every variable of the environment that a configuration reads."""
    names = {match["name"] for _, text in _texts(config, "") for match in _ENVIRONMENT.finditer(text)}
    return {value: f"${{oc.env:{name}}}" for name in sorted(names) if (value := os.environ.get(name))}


def _texts(node: object, where: str) -> Iterator[tuple[str, str]]:
    """Every text of some data.

    Yields:
        Its dotted place, and the text.
    """
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=False)
    if isinstance(node, str):
        yield where.rstrip("."), node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield f"{where}{key}", str(key)
            yield from _texts(value, f"{where}{key}.")
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _texts(value, f"{where}{index}.")


@contextmanager
def _without_create() -> Iterator[None]:
    """Turns ``oc.create`` off, whose name a nested interpolation can hide from the check of texts."""
    OmegaConf.clear_resolver("oc.create")
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.create", oc.create)
