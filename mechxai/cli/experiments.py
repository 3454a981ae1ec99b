"""``mechxai experiments``: the ready experiments, each with its sentence."""

from collections.abc import Sequence

from mechxai.cli.console import OK, show, show_table
from mechxai.core.errors import ConfigError, unknown
from mechxai.sweeps.config_files import choices_of, comment_of, config_text

HELP = """The ready experiments: a task, a model, and one or several methods.

  mechxai experiments                    all of them
  mechxai experiments ioi_patching       one, with its configuration
  mechxai run experiment=ioi_patching    run it; every setting can be overridden"""


def main(arguments: Sequence[str]) -> int:
    """``mechxai experiments [NAME ...]``; returns the exit code.

    Raises:
        ConfigError: no experiment has that name; names the nearest.
    """
    names = choices_of("experiment")
    for name in arguments:
        if name not in names:
            raise ConfigError(unknown("experiment", name, names), fix="See mechxai experiments")
    for name in arguments:
        show(f"mechxai run experiment={name}\n")
        show(config_text("experiment", name))
    if not arguments:
        rows = [{"name": name, "description": comment_of("experiment", name)} for name in names]
        show_table("Experiments (mechxai run experiment=NAME)", rows)
    return OK
