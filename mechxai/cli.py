"""``mechxai …``: run, methods, models, tasks, runs, report."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from rich.console import Console

from mechxai import listing
from mechxai._resources import configs_dir
from mechxai.core.errors import ConfigError, MechXAIError, nearest
from mechxai.launch import sweep
from mechxai.launch.guard import INTERRUPTED, guarded
from mechxai.launch.overrides import asked, check_overrides
from mechxai.launch.runs import runs

_USAGE = """usage: mechxai COMMAND ...

  run       put a method to a model on a task (mechxai run --help lists choices and examples)
  methods   what each method asks, what it costs, where it comes from
  models    the bundled models and what they can do
  tasks     the tasks and their settings
  runs      the runs below a folder (default: outputs): list, show, compare, merge, clean
  report    one HTML page from result files: mechxai report RESULT.nc ... -o report.html

New here? mechxai run experiment=ioi_patching model=zoo/planted-ioi tracker=none"""
_console = Console()


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands: dict[str, Callable[[list[str]], int]] = {
        "run": _run,
        "methods": listing.methods,
        "models": listing.models,
        "tasks": listing.tasks,
        "runs": runs,
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
    """``mechxai run``: hydra composes the configuration and runs one job, or every job of a sweep."""
    if any(flag in arguments for flag in ("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i")):
        return _hydra(arguments)
    folder = check_overrides(arguments)
    if folder is None:
        return _hydra(arguments)
    return _sweep(arguments, Path(folder) / sweep.sweep_hash(asked(arguments)))


def _sweep(arguments: list[str], folder: Path) -> int:
    """All jobs of a sweep; what was finished before is found, what failed is told."""
    with sweep.Watch(folder):
        code = _hydra([*arguments, f"hydra.sweep.dir='{folder}'"])
    return sweep.end(folder) or code


def _hydra(arguments: list[str]) -> int:
    GlobalHydra.instance().clear()
    sys.argv = ["mechxai run", *arguments]
    try:
        hydra.main(version_base="1.3", config_path=str(configs_dir()), config_name="run")(guarded)()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; what is finished is kept: run the same command to go on")
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
