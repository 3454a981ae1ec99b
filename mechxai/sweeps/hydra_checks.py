"""Refuses a configuration whose ``hydra`` part would run code: callbacks, loggers, launchers, commands of a job.

Configuration files may come from elsewhere. What the user writes on the command line is the user's own.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from mechxai.core.errors import ConfigError
from mechxai.sweeps.resolution import JOB_RESOLVERS, check_interpolations

_PLUGINS = ("hydra._internal.", "hydra_plugins.", "mechxai.")  # where installed launchers and sweepers lie
_HANDLERS = ("logging.StreamHandler", "logging.FileHandler", "colorlog.ColoredFormatter")
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
_LOG_FOLDERS = ("${hydra.runtime.output_dir}/", "hydra-${hydra.job.name}.log")
_COMMANDS = ("setup", "python", "srun_args", "executable")  # of a cluster's launcher: text that a shell runs


def check_hydra(config: Any, overrides: Sequence[str] = ()) -> None:
    """Refuses settings of hydra that make it call code, unless the command line names them.

    Args:
        config: the composed configuration, with hydra's part.
        overrides: of the command line.

    Raises:
        ConfigError: names the key.
    """
    hydra = OmegaConf.to_container(config.hydra, resolve=False) if "hydra" in config else {}
    named = {override.partition("=")[0].lstrip("+~") for override in overrides}
    for key, problem in _faults(hydra if isinstance(hydra, Mapping) else {}):
        if not any(key == name or key.startswith(f"{name}.") or name.startswith(f"{key}.") for name in named):
            raise ConfigError(
                f"{key} comes from a configuration file and {problem}",
                fix="Leave it out, or write it on the command line if you trust it",
            )
    check_interpolations(hydra, "hydra.", allowed=JOB_RESOLVERS)


def _faults(hydra: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    """What would call code.

    Yields:
        The dotted key, and what it does.
    """
    if hydra.get("callbacks"):
        yield "hydra.callbacks", "makes hydra call classes"
    if (hydra.get("job") or {}).get("env_set"):
        yield "hydra.job.env_set", f"sets {', '.join(map(str, hydra['job']['env_set']))} in the environment"
    yield from _plugin_faults(hydra)
    for part in ("job_logging", "hydra_logging"):
        yield from _logging_faults(hydra.get(part), f"hydra.{part}")


def _plugin_faults(hydra: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    """What launcher and sweeper would make or run besides themselves.

    Yields:
        The dotted key, and what it does.
    """
    for part in ("launcher", "sweeper"):
        for place, target in _targets(hydra.get(part), f"hydra.{part}"):
            if place != f"hydra.{part}._target_" or not target.startswith(_PLUGINS):
                yield place, f"makes {target}, which is no {part} that is installed for hydra"
    for command in _COMMANDS:
        if (hydra.get("launcher") or {}).get(command):
            yield f"hydra.launcher.{command}", "runs in a shell"


def _targets(node: object, where: str) -> Iterator[tuple[str, str]]:
    """Every ``_target_`` below a node.

    Yields:
        Its dotted key, and its value.
    """
    for place, value in _leaves(node, where):
        if place.endswith("._target_"):
            yield place, str(value)


def _logging_faults(node: object, where: str) -> Iterator[tuple[str, str]]:
    """What Python's logging would make or write besides lines on the terminal and in the run's own folder.

    Yields:
        The dotted key, and what it does.
    """
    for place, value in _leaves(node, where):
        key, text = place.rpartition(".")[2], str(value)
        if key == "()" or (key == "class" and text not in _HANDLERS):
            yield place, f"makes {text}"
        elif key == "filename" and not text.startswith(_LOG_FOLDERS):
            yield place, f"writes to {text}"
        elif text.startswith(("ext://", "cfg://")) and text not in _STREAMS:
            yield place, f"refers to {text}"


def _leaves(node: object, where: str) -> Iterator[tuple[str, object]]:
    """Every value of some data that is no container.

    Yields:
        Its dotted key, and the value.
    """
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, f"{where}.{key}")
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _leaves(value, f"{where}.{index}")
    else:
        yield where, node
