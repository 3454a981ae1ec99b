"""``mechxai …``: run, explore, methods, models, tasks, runs, report, explain, completion."""

import sys
from collections.abc import Callable, Sequence

from rich.console import Console

from mechxai.cli import console
from mechxai.cli.completion import completion
from mechxai.core.errors import ConfigError, MechXAIError, nearest
from mechxai.core.files import disk_error

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
_HELP = {
    "methods": """What each method asks of a model, what it costs, where it comes from.

  mechxai methods                        all of them, by family
  mechxai methods activation_patching    one: strengths, weaknesses, settings, how it is called
  mechxai methods --markdown             the table of the README""",
    "models": """The bundled models: what each was trained or built for, and what was measured of it.

  mechxai models

mechxai run model=NAME, and mx.load(NAME), take these, a checkpoint's folder, or a Hugging Face id.""",
    "tasks": """The tasks, which give prompts and what counts as an answer, and their settings.

  mechxai tasks                 all of them
  mechxai tasks ioi sva         some
  mechxai run task=ioi task.n=64 task.seed=1   as a run takes them""",
    "report": """One self-contained HTML page from result files.

  mechxai report outputs/.../result.nc ... -o report.html   (default: report.html)""",
    "explain": """What an error means and what to do, or a method whole.

  mechxai explain                 the errors there are
  mechxai explain SiteError       one of them
  mechxai explain logit_lens      a method: what it computes, its signs and pitfalls""",
    "completion": """What TAB offers in a shell: commands, configuration keys, methods, models, tasks.

  eval "$(mechxai completion bash)"     in ~/.bashrc; likewise zsh
  mechxai completion fish | source      in ~/.config/fish/config.fish""",
}
_console = Console()


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands: dict[str, Callable[[list[str]], int]] = {
        "run": _run,
        "explore": _explore,
        "methods": console.methods,
        "models": console.models,
        "tasks": console.tasks,
        "runs": _runs,
        "report": console.report,
        "explain": _explain,
        "completion": lambda own: completion(own, commands),
    }
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        _console.print(_USAGE, highlight=False, markup=False, soft_wrap=True)
        return 0
    try:
        if arguments[0] not in commands:
            raise ConfigError(f"mechxai {arguments[0]} was asked", allowed=nearest(arguments[0], commands))
        if arguments[0] in _HELP and arguments[1:2] in (["-h"], ["--help"]):
            console.show(_HELP[arguments[0]])
            return 0
        return commands[arguments[0]](arguments[1:])
    except MechXAIError as error:
        console.show_error(error)
        return 2
    except OSError as error:
        known = disk_error(error)
        if known is None:
            raise
        console.show_error(known)
        return 2
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted")
        return console.INTERRUPTED


def _run(arguments: list[str]) -> int:
    from mechxai.cli.run import run  # noqa: PLC0415 - hydra, which keeps --help waiting

    return run(arguments)


def _explore(arguments: list[str]) -> int:
    from mechxai.cli.explore import explore  # noqa: PLC0415 - heavy

    return explore(arguments)


def _explain(arguments: list[str]) -> int:
    from mechxai.cli.explain import explain  # noqa: PLC0415 - markdown, which keeps --help waiting

    return explain(arguments)


def _runs(arguments: list[str]) -> int:
    from mechxai.cli.runs import runs  # noqa: PLC0415 - heavy

    return runs(arguments)


if __name__ == "__main__":
    sys.exit(main())
