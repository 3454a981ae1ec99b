"""One job: what a configuration names is made and run, in this process or shared out over several."""

import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mechxai.core.errors import ConfigError, UnfinishedError
from mechxai.core.files import make_writable_folder
from mechxai.core.method import Method
from mechxai.core.reporter import Reporter
from mechxai.sweeps.devices import number_beside_others, reserved_device, visible


def job(config: DictConfig, show: Reporter) -> dict[str, Path]:
    """One job: what the configuration names is made, run, and its folder shown.

    Returns:
        label of a method -> folder of its results; empty for a plan and for a shard.
    """
    with reserved_device(config, number_beside_others()) as settled:
        return _job(settled, show)


def _job(config: DictConfig, show: Reporter) -> dict[str, Path]:
    from mechxai.runs.execute import explain_study, run_study  # noqa: PLC0415 - heavy
    from mechxai.runs.study import Study  # noqa: PLC0415 - heavy

    check_targets(OmegaConf.to_container(config, resolve=False))
    check_processes(config.processes)
    if not config.plan:
        make_writable_folder(Path(config.output), setting=f"output={config.output}")
    parts = {
        name: hydra.utils.instantiate(config[name], _convert_="all") for name in ("model", "task", "method", "tracker")
    }
    also = {
        label: hydra.utils.instantiate(config.also[label], _convert_="all") for label in companion_labels(config.also)
    }
    first = str(config.method.get("site") or parts["method"].settings()["name"])
    also = _beside(first, parts["method"], also, show=show)
    study = Study(
        name=config.name,
        model=parts["model"],
        batch=make_prompts(parts["task"], parts["model"]),
        methods={first: parts["method"], **also},
        root=Path(config.output),
        seed=config.seed,
        engine=config.engine,
        tokens_per_wave=config.tokens_per_wave,
        force=config.force,
        shard=read_shard(config.shard),
        png=config.figure.png,
        sweep=_sweep(config.name),
        config={
            "config.yaml": OmegaConf.to_yaml(config),
            "overrides.yaml": OmegaConf.to_yaml(HydraConfig.get().overrides.task),
        },
    )
    show(f"{study.name}: {study.model!r}")
    if config.plan:
        explain_study(study, show)
        return {}
    if config.processes > 1 and study.shard is None:
        for label in study.methods if study.force else ():  # once, before the shards, which also find nothing
            shutil.rmtree(study.folder(label), ignore_errors=True)
        study = replace(study, force=False)
        share_out(list(HydraConfig.get().overrides.task), config.processes)
    settings = OmegaConf.to_container(config, resolve=True)
    known = {str(key): value for key, value in settings.items()} if isinstance(settings, dict) else {}
    done = run_study(study, parts["tracker"], show, settings=known)
    return {label: finished.folder for label, finished in done.items()}


def _sweep(name: str) -> str:
    """What the jobs of a sweep have in common; empty for a job alone."""
    hydra_config = HydraConfig.get()
    own = Path(hydra_config.sweep.dir).name if hydra_config.mode == RunMode.MULTIRUN else ""
    return f"{name}-{own}" if own else ""


def _beside(first: str, method: Method, also: Mapping[str, Method], *, show: Reporter) -> dict[str, Method]:
    """The companions of the first method; one at the same site gives way to it, unless it asks over other axes.

    Raises:
        ConfigError: another kind of method bears the first one's label.
    """
    if first in also and type(also[first]) is not type(method):
        got = f"the first method is called {first} already"
        raise ConfigError(f"also.{first} was asked", got=got, fix="give it another label")
    own, other = (list(map(str, getattr(one, "over", ()))) for one in (method, also.get(first, method)))
    if own != other:
        label = "-".join([first, *other])
        if label in also:
            raise ConfigError(f"also.{first} was asked", got=f"{label} is there as well", fix=f"also.{first}=null")
        show(f"{first}: asked over {', '.join(own)}; also.{first}, over {', '.join(other)}, is called {label}")
        return {label if one == first else one: companion for one, companion in also.items()}
    if first in also:
        show(f"{first}: asked of the first method, so that also.{first} is left out")
    return {label: one for label, one in also.items() if label != first}


def companion_labels(also: Mapping[str, Any]) -> list[str]:
    """The labels of the methods beside the first; ``also.LABEL=null`` leaves one out.

    Raises:
        ConfigError: one of which settings are left, but no method.
    """
    found = [str(label) for label, one in also.items() if one is not None]
    headless = [label for label in found if "_target_" not in also[label]]
    if headless:
        name = headless[0]
        raise ConfigError(f"also.{name} was asked", got="no method", fix=f"also.{name}=null leaves it out")
    return found


def make_prompts(task: Callable[..., Any], model: Any) -> Any:
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


def check_processes(given: object) -> None:
    """Refuses a number of processes that is none.

    Raises:
        ConfigError: not a whole number from 1.
    """
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise ConfigError(f"processes={given!r} was asked", allowed="a whole number from 1")


def share_out(overrides: Sequence[str], n_processes: int) -> None:
    """Runs the same job in several processes, each its shard of the waves and, where there are GPUs, its own GPU.

    Raises:
        UnfinishedError: a process failed; its own words are on the screen.
    """
    own = [override for override in overrides if override.partition("=")[0] not in ("shard", "processes", "force")]
    own.append("hydra.mode=RUN")  # a job of a sweep is no sweep
    running = []
    for index in range(n_processes):
        command = [sys.executable, "-m", "mechxai.cli", "run", *own, f"shard={index}/{n_processes}"]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": _gpu(index)}
        running.append(subprocess.Popen(command, env=environment))
    try:
        failed = [index for index, process in enumerate(running) if process.wait() != 0]
    except BaseException:  # whoever ends this process ends the shards
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
        raise
    if failed:
        raise UnfinishedError(
            f"processes={n_processes} was asked",
            got=f"shard {failed[0]} failed, see above",
            fix="finished waves are kept; run the same command again",
        )


def _gpu(index: int) -> str:
    """The GPU of a shard: they take turns among those that this process may see."""
    known = visible()
    return known[index % len(known)] if known else os.environ.get("CUDA_VISIBLE_DEVICES", "")


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
