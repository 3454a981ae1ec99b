"""``mechxai tasks``: the tasks and their settings. Imports no torch."""

from collections.abc import Sequence

from mechxai.cli.console import OK, show, show_table
from mechxai.cli.settings_table import settings_rows
from mechxai.core.errors import ConfigError, unknown
from mechxai.core.signature import REQUIRED, Parameter, Signature, read_signature
from mechxai.sweeps.config_files import choices_of, target_of

HELP = """The tasks, which give prompts and what counts as an answer, and their settings.

  mechxai tasks                 all of them
  mechxai tasks ioi sva         some, with every setting
  mechxai run task=ioi task.n=64 task.seed=1   as a run takes them"""


def main(arguments: Sequence[str]) -> int:
    """``mechxai tasks [NAME ...]``; returns the exit code.

    Raises:
        ConfigError: no task has that name; names the nearest.
    """
    tasks = task_signatures()
    names = [name.removeprefix("from_") for name in arguments]
    for name in names:
        if name not in tasks:
            raise ConfigError(unknown("task", name, tasks), fix="See mechxai tasks")
    for name in names:
        _show_task(name, tasks[name])
    if not names:
        rows = [
            {"name": name, "prompts": _summary(task), "settings": ", ".join(map(_setting, _settings(task)))}
            for name, task in tasks.items()
        ]
        show_table("Tasks", rows)
        show("mechxai tasks NAME shows every setting with its choices")
    return OK


def task_signatures() -> dict[str, Signature]:
    """Name of a task, as ``task=`` takes it -> its signature."""
    signatures = {name: _signature(target_of("task", name)) for name in choices_of("task")}
    return {name: signature for name, signature in signatures.items() if signature is not None}


def _signature(target: str) -> Signature | None:
    module, _, name = target.rpartition(".")
    return read_signature(module, name)


def _show_task(name: str, task: Signature) -> None:
    show_table(f"{name}: {_summary(task)}", settings_rows(_settings(task)))
    show(f"in Python: mx.tasks.{task.name}(model, ...); in a run: mechxai run task={name}")


def _settings(task: Signature) -> list[Parameter]:
    return [field for name, field in task.parameters.items() if name != "model"]


def _setting(field: Parameter) -> str:
    return field.name if field.default is REQUIRED else f"{field.name}={field.source}"


def _summary(task: Signature) -> str:
    return task.doc.partition("\n")[0]
