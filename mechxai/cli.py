"""``mechxai …``: run, explore, methods, models, tasks, runs, report, explain, completion."""

import sys
from collections.abc import Callable, Sequence

from rich.console import Console

from mechxai import listing
from mechxai.completion import completion
from mechxai.core.errors import ConfigError, MechXAIError, nearest

_USAGE = """usage: mechxai COMMAND ...

  run         put a method to a model on a task (mechxai run --help: choices and examples)
  explore     a prompt and a model in the browser: lens, attention, contributions, patching, circuit
  methods     what each method asks, what it costs, where it comes from
  models      the bundled models and what they can do
  tasks       the tasks and their settings
  runs        the runs below a folder (default: outputs): list, show, compare, merge, clean
  report      one HTML page from result files: mechxai report RESULT.nc ... -o report.html
  explain     what an error means and what to do: mechxai explain SiteError
  completion  what TAB offers in bash, zsh, fish: eval "$(mechxai completion bash)"

New here? mechxai run experiment=ioi_patching model=zoo/planted-ioi tracker=none"""
_console = Console()


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands: dict[str, Callable[[list[str]], int]] = {
        "run": _run,
        "explore": _explore,
        "methods": listing.methods,
        "models": listing.models,
        "tasks": listing.tasks,
        "runs": _runs,
        "report": listing.report,
        "explain": _explain,
        "completion": lambda own: completion(own, commands),
    }
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        _console.print(_USAGE, highlight=False, markup=False, soft_wrap=True)
        return 0
    try:
        if arguments[0] not in commands:
            raise ConfigError(f"mechxai {arguments[0]} was asked", allowed=nearest(arguments[0], commands))
        return commands[arguments[0]](arguments[1:])
    except MechXAIError as error:
        listing.show_error(error)
        return 2


def _run(arguments: list[str]) -> int:
    from mechxai.launch.run_command import run  # noqa: PLC0415 - hydra, which keeps --help waiting

    return run(arguments)


def _explore(arguments: list[str]) -> int:
    from mechxai.launch.explore_command import explore  # noqa: PLC0415 - heavy

    return explore(arguments)


def _explain(arguments: list[str]) -> int:
    from mechxai.explain_command import explain  # noqa: PLC0415 - markdown, which keeps --help waiting

    return explain(arguments)


def _runs(arguments: list[str]) -> int:
    from mechxai.launch.runs import runs  # noqa: PLC0415 - heavy

    return runs(arguments)


if __name__ == "__main__":
    sys.exit(main())
