"""One job: build what a configuration names, and run it in this process or in several."""

import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mechxai.core.errors import ConfigError, UnfinishedError
from mechxai.core.files import make_writable_folder
from mechxai.core.reporter import Reporter
from mechxai.sweeps.allowed_targets import check_plugins, check_targets, make, plugin_overrides
from mechxai.sweeps.devices import concurrent_job_number, reserved_device, visible_gpus
from mechxai.sweeps.folder_names import check_name
from mechxai.sweeps.resolution import JOB_RESOLVERS, Record, resolved
from mechxai.sweeps.run_settings import RunSettings

if TYPE_CHECKING:  # importing it imports torch
    from mechxai.core.method import Method


def run_job(config: DictConfig, show: Reporter) -> dict[str, Path]:
    """Builds and runs what a configuration names.

    Args:
        config: as hydra composed it.
        show: prints lines and tables for the user.

    Returns:
        label of a method -> folder of its results; empty for a plan and for a shard.
    """
    with reserved_device(config, concurrent_job_number()) as settled:
        return _run_job(settled, show)


def _run_job(config: DictConfig, show: Reporter) -> dict[str, Path]:
    from mechxai.runs.execute import explain_study, run_study  # noqa: PLC0415 - heavy
    from mechxai.runs.study import Study  # noqa: PLC0415 - heavy

    written = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)  # interpolations stay
    overrides = [str(override) for override in written] if isinstance(written, list) else []
    settings = RunSettings.from_config(config)
    packages = load_plugins(settings.plugins, overrides)
    content = resolved(config, allowed=JOB_RESOLVERS)
    check_targets(content, plugins=packages)
    if not settings.plan:
        make_writable_folder(Path(settings.output).expanduser(), setting=f"output={settings.output}")
    parts = {
        name: make(content[name], plugins=packages) for name in ("method", "tracker", "task", "model")
    }  # the slow one last
    record = Record.of(config, overrides, in_clear=settings.show_environment)
    study = Study(
        name=record.name,
        model=parts["model"],
        batch=make_prompts(parts["task"], parts["model"]),
        methods=_methods(content, parts["method"], packages, show=show),
        root=Path(settings.output).expanduser(),
        seed=settings.seed,
        engine=settings.engine,
        tokens_per_wave=settings.tokens_per_wave,
        force=settings.force,
        shard=settings.shard_numbers(),
        png=config.figure.png,
        sweep=_sweep_name(settings.name),
        config=record.files,
        masks=record.masks,
    )
    show(f"{study.name}: {_model_line(study.model)}")
    if settings.plan:
        explain_study(study, show)
        return {}
    if settings.processes > 1 and study.shard is None:
        for label in study.methods if study.force else ():  # removed once, here; no shard removes anything
            shutil.rmtree(study.run_folder(label).path, ignore_errors=True)
        study = replace(study, force=False)
        run_shards(overrides, settings.processes)
    finished = run_study(study, parts["tracker"], show, settings=record.content)
    return {label: run.folder for label, run in finished.items()}


def load_plugins(plugins: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """Imports the plugins of a configuration, all of which the command line must name.

    Returns:
        The packages of the plugins, whose code the configuration may make.

    Raises:
        ConfigError: a plugin from a configuration file, or one that cannot be imported.
    """
    check_plugins(plugins, plugin_overrides(overrides))
    if not plugins:
        return []
    from mechxai.methods.registry import import_plugins  # noqa: PLC0415 - heavy

    return [module.partition(".")[0] for module in import_plugins(plugins)]


def companion_labels(also: Mapping[str, Any]) -> list[str]:
    """The labels of the methods beside the first; ``also.LABEL=null`` leaves one out.

    Raises:
        ConfigError: a label with settings but no method.
    """
    labels = [str(label) for label, node in also.items() if node is not None]
    for label in labels:
        check_name("also", label.replace("/", "//"))  # a file's name: no folder in it
        if "_target_" not in also[label]:
            raise ConfigError(f"also.{label} names no method", fix=f"also.{label}=null leaves it out")
    return labels


def make_prompts(task: Callable[..., Any], model: Any) -> Any:
    """A task's prompts for a model.

    Raises:
        ConfigError: a setting that the task needs is missing, or n or seed is no whole number.
    """
    name = getattr(getattr(task, "func", task), "__name__", "task")
    try:
        bound = inspect.signature(task).bind(model)
    except TypeError as error:
        missing = str(error).rpartition("argument: ")[2].strip("'")
        raise ConfigError(f"task={name}: {error}", fix=f"Set task.{missing}=VALUE") from None
    bound.apply_defaults()
    for key in ("n", "seed"):
        value = bound.arguments.get(key)
        if not isinstance(value, int | None) or isinstance(value, bool):
            raise ConfigError(f"task.{key}={value!r} is not a whole number")
    return task(model)


def run_shards(overrides: Sequence[str], n_processes: int) -> None:
    """Runs the same job in several processes, each its shard of the waves and, where there are GPUs, its own GPU.

    Raises:
        UnfinishedError: a process failed; its own message is on the screen.
    """
    shared = [override for override in overrides if override.partition("=")[0] not in ("shard", "processes", "force")]
    shared.append("hydra.mode=RUN")  # a job of a sweep is no sweep
    processes = []
    for index in range(n_processes):
        command = [sys.executable, "-m", "mechxai.cli", "run", *shared, f"shard={index}/{n_processes}"]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": _gpu(index)}
        processes.append(subprocess.Popen(command, env=environment))
    try:
        failed = [index for index, process in enumerate(processes) if process.wait() != 0]
    except BaseException:  # Ctrl-C and the like end the shards too
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
        raise
    if failed:
        raise UnfinishedError(
            f"Shard {failed[0]} of {n_processes} failed; its message is above",
            fix="Run the same command again: finished waves are kept",
        )


def _methods(
    content: Mapping[str, Any], method: "Method", packages: Sequence[str], *, show: Reporter
) -> dict[str, "Method"]:
    """Label -> method: the first, then its companions."""
    label = str(content["method"].get("site") or method.settings()["name"])
    also = content["also"]
    companions = {name: make(also[name], plugins=packages) for name in companion_labels(also)}
    return {label: method, **_companions(label, method, companions, show=show)}


def _companions(
    label: str, method: "Method", companions: Mapping[str, "Method"], *, show: Reporter
) -> dict[str, "Method"]:
    """The companions without one that repeats the first method; a companion over other axes gets its own label.

    Raises:
        ConfigError: another kind of method has the first one's label.
    """
    twin = companions.get(label)
    if twin is not None and type(twin) is not type(method):
        raise ConfigError(f"also.{label} has the first method's label", fix="Choose another label")
    axes, twin_axes = (list(map(str, getattr(item, "over", ()))) for item in (method, twin or method))
    if axes != twin_axes:
        renamed = "-".join([label, *twin_axes])
        if renamed in companions:
            raise ConfigError(
                f"also.{label} would be called {renamed}, which exists already", fix=f"Leave it out: also.{label}=null"
            )
        show(f"also.{label}, over {', '.join(twin_axes)}, is called {renamed}: {label} is over {', '.join(axes)}")
        return {renamed if name == label else name: companion for name, companion in companions.items()}
    if twin is not None:
        show(f"also.{label} is left out: the first method is the same")
    return {name: companion for name, companion in companions.items() if name != label}


def _model_line(model: Any) -> str:
    """A model in one line: its name, and how it is loaded."""
    info = model.info()
    return ", ".join(
        [model.name, *(str(info[key]) for key in ("backend", "processing", "dtype", "device") if key in info)]
    )


def _sweep_name(name: str) -> str:
    """The name that the jobs of a sweep share; empty for a single job."""
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.sweep.dir).name if hydra_config.mode == RunMode.MULTIRUN else ""
    return f"{name}-{folder}" if folder else ""


def _gpu(index: int) -> str:
    """The GPU of a shard: shards take turns among those that this process sees."""
    gpus = visible_gpus()
    return gpus[index % len(gpus)] if gpus else os.environ.get("CUDA_VISIBLE_DEVICES", "")
