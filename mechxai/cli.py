"""``mechxai …``: run, methods, models, tasks, runs, report."""

import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from mechxai import listing
from mechxai._resources import configs_dir
from mechxai.core.errors import ConfigError, MechXAIError, nearest

_USAGE = """usage: mechxai COMMAND ...

  run       put a method to a model on a task (mechxai run --help lists choices and examples)
  methods   what each method asks, what it costs, where it comes from
  models    the bundled models and what they can do
  tasks     the tasks and their settings
  runs      the finished runs below a folder (default: outputs)
  report    one HTML page from result files: mechxai report RESULT.nc ... -o report.html

New here? mechxai run experiment=ioi_patching model=zoo/planted-ioi tracker=none"""
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
_INTERRUPTED = 130  # as shells have it
_console = Console()


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands: dict[str, Callable[[list[str]], int]] = {
        "run": _run,
        "methods": listing.methods,
        "models": listing.models,
        "tasks": listing.tasks,
        "runs": listing.runs,
        "report": listing.report,
    }
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        _console.print(_USAGE, highlight=False, markup=False)
        return 0
    try:
        if arguments[0] not in commands:
            raise ConfigError(f"mechxai {arguments[0]} was asked", allowed=nearest(arguments[0], commands))
        return commands[arguments[0]](arguments[1:])
    except MechXAIError as error:
        Console(stderr=True).print(f"[bold red]{type(error).__name__}[/]: ", end="")
        Console(stderr=True, soft_wrap=True).print(str(error), markup=False, highlight=False)
        return 2


def _run(arguments: list[str]) -> int:
    """``mechxai run``: hydra composes the configuration and calls `job`, once or for every job of a sweep."""
    if not any(flag in arguments for flag in ("--help", "-h", "--hydra-help", "--version")):
        check_overrides(arguments)
    GlobalHydra.instance().clear()
    sys.argv = ["mechxai run", *arguments]
    failures: list[BaseException] = []

    def guarded(config: DictConfig) -> None:
        try:
            job(config)
        except KeyboardInterrupt:
            Console(stderr=True).print("interrupted; what is finished is kept: run the same command to go on")
            raise SystemExit(_INTERRUPTED) from None
        except (MechXAIError, InstantiationException) as raised:
            error = raised.__cause__ if isinstance(raised, InstantiationException) else raised
            if not isinstance(error, MechXAIError):
                raise
            failures.append(error)
            Console(stderr=True, soft_wrap=True).print(
                f"{type(error).__name__}: {error}", markup=False, highlight=False
            )

    hydra.main(version_base="1.3", config_path=str(configs_dir()), config_name="run")(guarded)()
    return 1 if failures else 0


def job(config: DictConfig) -> None:
    """One job: what the configuration names is made, run, and its folder shown."""
    from mechxai.run import Study, explain_study, run_study  # noqa: PLC0415 - heavy

    check_targets(OmegaConf.to_container(config, resolve=False))
    parts = {
        name: hydra.utils.instantiate(config[name], _convert_="all") for name in ("model", "task", "method", "tracker")
    }
    then = {label: hydra.utils.instantiate(config.then[label], _convert_="all") for label in wanted(config.then)}
    first = str(config.method.get("site") or parts["method"].settings()["name"])
    study = Study(
        name=config.name,
        model=parts["model"],
        batch=made(parts["task"], parts["model"]),
        methods={first: parts["method"], **then},
        root=Path(config.output),
        seed=config.seed,
        engine=config.engine,
        tokens_per_wave=config.tokens_per_wave,
        force=config.force,
        shard=read_shard(config.shard),
        png=config.figure.png,
        config={
            "config.yaml": OmegaConf.to_yaml(config),
            "overrides.yaml": OmegaConf.to_yaml(HydraConfig.get().overrides.task),
        },
    )
    _console.print(f"{study.name}: {study.model!r}", markup=False, highlight=False, soft_wrap=True)
    if config.plan:
        explain_study(study, listing.show)
        return
    if config.processes > 1 and study.shard is None:
        share_out(list(HydraConfig.get().overrides.task), config.processes)
    settings = OmegaConf.to_container(config, resolve=True)
    known = {str(key): value for key, value in settings.items()} if isinstance(settings, dict) else {}
    run_study(study, parts["tracker"], listing.show, settings=known)


def wanted(then: Mapping[str, Any]) -> list[str]:
    """The labels of the methods beside the first; ``then.LABEL=null`` leaves one out.

    Raises:
        ConfigError: one of which settings are left, but no method.
    """
    found = [str(label) for label, one in then.items() if one is not None]
    headless = [label for label in found if "_target_" not in then[label]]
    if headless:
        name = headless[0]
        raise ConfigError(f"then.{name} was asked", got="no method", fix=f"then.{name}=null leaves it out")
    return found


def made(task: Callable[..., Any], model: Any) -> Any:
    """A task's prompts for a model.

    Raises:
        ConfigError: a setting that the task needs is missing, or n or seed is no whole number.
    """
    name = getattr(getattr(task, "func", task), "__name__", "task")
    try:
        given = inspect.signature(task).bind(model)
    except TypeError as error:
        lacking = str(error).rpartition("argument: ")[2].strip("'")
        raise ConfigError(f"task={name} was asked", got=str(error), fix=f"set task.{lacking}=VALUE") from None
    given.apply_defaults()
    for key in ("n", "seed"):
        value = given.arguments.get(key)
        if not isinstance(value, int | None) or isinstance(value, bool):
            raise ConfigError(f"task.{key}={value!r} was asked of {name}", allowed="a whole number")
    return task(model)


def read_shard(text: str | None) -> tuple[int, int] | None:
    """``"0/4"`` as numbers.

    Raises:
        ConfigError: it is not of that form.
    """
    if text is None:
        return None
    index, slash, count = str(text).partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ConfigError(f"shard={text!r} was asked", allowed="i/n with i from 0 to n - 1, as in shard=0/4")
    return int(index), int(count)


def share_out(overrides: Sequence[str], n_processes: int) -> None:
    """Runs the same job in several processes, each its shard of the waves and, where there are GPUs, its own GPU.

    Raises:
        ConfigError: a process failed; its own words are on the screen.
    """
    own = [override for override in overrides if override.partition("=")[0] not in ("shard", "processes")]
    running = []
    for index in range(n_processes):
        command = [sys.executable, "-m", "mechxai.cli", "run", *own, f"shard={index}/{n_processes}"]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": _gpu(index)}
        running.append(subprocess.Popen(command, env=environment))
    failed = [index for index, process in enumerate(running) if process.wait() != 0]
    if failed:
        raise ConfigError(
            f"processes={n_processes} was asked",
            got=f"shard {failed[0]} failed, see above",
            fix="finished waves are kept; run the same command again",
        )


def _gpu(index: int) -> str:
    """The GPU of a shard: they take turns among those that this process may see."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    known = visible.split(",") if visible else [str(number) for number in range(_n_gpus())]
    return known[index % len(known)] if known else ""


def _n_gpus() -> int:
    import torch  # noqa: PLC0415 - heavy

    return torch.cuda.device_count()


def check_overrides(arguments: Sequence[str]) -> None:
    """Refuses overrides that do not fit the configuration, naming the nearest key.

    Raises:
        ConfigError: an unknown key or choice, or an override that cannot be read.
    """
    overrides, skip = [], False
    for argument in arguments:
        if skip or argument.startswith("-"):
            skip = argument in _FLAGS_WITH_VALUE and not skip
            continue
        overrides.append(argument)
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise ConfigError(
            f"The override {overrides} cannot be read",
            got=str(error).splitlines()[0],
            fix="write key=value; quote lists for the shell",
        ) from error
    single = [_first_choice(override) for override in parsed]
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(configs_dir()), version_base="1.3", job_name="run"):
        if any(flag in arguments for flag in ("--config-dir", "-cd")):
            return  # the user's own choices are known to hydra alone
        try:
            hydra.compose("run", overrides=single)
        except (HydraException, OmegaConfBaseException) as error:
            raise _explained(error, single) from error


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
    if unknown:
        return ConfigError(f"The key {unknown[0]!r} was asked", got="no such key", allowed=nearest(unknown[0], known))
    for override in plain:
        group, _, choice = override.partition("=")
        choices = _choices(group)
        if choices and choice not in choices:
            return ConfigError(f"{group}={choice} was asked", got="no such choice", allowed=nearest(choice, choices))
    return ConfigError("The configuration cannot be composed", got=" ".join(message[:3]))


def _is_group(override: str) -> bool:
    return (configs_dir() / override.partition("=")[0]).is_dir()


def _choices(group: str) -> list[str]:
    folder = configs_dir() / group
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


def _known_keys(overrides: Sequence[str]) -> list[str]:
    usable = [override for override in overrides if override.partition("=")[2] in _choices(override.partition("=")[0])]
    composed = OmegaConf.to_container(hydra.compose("run", overrides=usable), resolve=False)
    found: list[str] = ["experiment", "sweep", "debug"]

    def walk(node: object, prefix: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                found.append(f"{prefix}{key}")
                walk(value, f"{prefix}{key}.")

    walk(composed, "")
    return found


def check_targets(node: object, where: str = "") -> None:
    """Refuses a ``_target_`` outside MechXAI: a configuration must not be able to call just anything.

    Raises:
        ConfigError: names the key.
    """
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if target is not None and not str(target).startswith("mechxai."):
            raise ConfigError(
                f"{where}_target_={target!r} was asked",
                allowed="targets that begin with mechxai.",
                fix="call other code from Python instead",
            )
        for key, value in node.items():
            check_targets(value, f"{where}{key}.")
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            check_targets(value, f"{where}{index}.")


if __name__ == "__main__":
    sys.exit(main())
