"""``mechxai COMMAND ...``: finds the command's module and runs it."""

import importlib
import sys
from collections.abc import Sequence

from mechxai import __version__
from mechxai.cli.console import INTERRUPTED, OK, REFUSED, error_stream, show, show_error
from mechxai.core.errors import ConfigError, MechXAIError, unknown
from mechxai.core.files import disk_error

COMMANDS = {
    "run": "run a method on a model and a task (mechxai run --help: choices and examples)",
    "explore": "a prompt and a model in the browser: lens, attention, contributions, patching, circuit",
    "experiments": "ready experiments, each with the command that runs it",
    "methods": "what each method measures, what it costs, where it comes from",
    "models": "the bundled models and what was measured of them",
    "tasks": "the tasks and their settings",
    "runs": "finished and unfinished runs in a folder: list, show, compare, merge, clean",
    "report": "one HTML page from result files: mechxai report RESULT.nc ... -o report.html",
    "explain": "what an error means and what to do: mechxai explain SiteError",
    "completion": 'completion for bash, zsh and fish: eval "$(mechxai completion bash)"',
}
"""Command -> what it does; each lies in a module of its name beside this file, with ``HELP`` and ``main``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        show(usage())
        return OK
    if arguments[0] in ("--version", "-V", "version"):
        show(f"mechxai {__version__}")
        return OK
    try:
        return _run_command(arguments[0], arguments[1:])
    except MechXAIError as error:
        show_error(error)
        return REFUSED
    except OSError as error:
        explained = disk_error(error)
        if explained is None:
            raise
        show_error(explained)
        return REFUSED
    except KeyboardInterrupt:
        error_stream().print("interrupted")
        return INTERRUPTED


def usage() -> str:
    """The text of ``mechxai --help``."""
    rows = [f"  {name:<12} {text}" for name, text in COMMANDS.items()]
    start = "New here? mechxai run experiment=ioi_patching model=zoo/planted-ioi tracker=none"
    return "\n".join(["usage: mechxai COMMAND ...", "", *rows, "", "mechxai COMMAND --help says more.", start])


def _run_command(name: str, arguments: list[str]) -> int:
    if name not in COMMANDS:
        raise ConfigError(unknown("command", name, COMMANDS), fix="See mechxai --help")
    command = importlib.import_module(f"mechxai.cli.{name}")
    if command.HELP and arguments[:1] in (["-h"], ["--help"]):
        show(command.HELP)
        return OK
    return command.main(arguments)
