"""``mechxai report``: one self-contained HTML page from result files."""

from collections.abc import Sequence

from mechxai.cli.console import OK, show
from mechxai.core.errors import ConfigError

HELP = """One self-contained HTML page from result files.

  mechxai report outputs/.../result.nc ... -o report.html   (default: report.html)"""


def main(arguments: Sequence[str]) -> int:
    """``mechxai report RESULT.nc ... [-o FILE]``; returns the exit code.

    Raises:
        ConfigError: no result file, or no file after ``-o``.
    """
    paths, target = list(arguments), "report.html"
    if "-o" in paths:
        place = paths.index("-o")
        if place + 1 == len(paths):
            raise ConfigError("-o names no file", fix="Write -o report.html")
        target = paths[place + 1]
        del paths[place : place + 2]
    if not paths:
        raise ConfigError(
            "mechxai report needs a result file", fix="mechxai report outputs/.../result.nc -o report.html"
        )
    from mechxai.core.result import Result  # noqa: PLC0415 - heavy
    from mechxai.report.page import report  # noqa: PLC0415 - heavy

    show(f"report: {report([Result.load(path) for path in paths], target)}")
    return OK
