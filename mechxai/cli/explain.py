"""``mechxai explain NAME``: what an error means and what to do about it, or what a method is."""

import re
from collections.abc import Sequence

from rich.markdown import Markdown

from mechxai._resources import errors_page
from mechxai.cli import console
from mechxai.core.errors import ConfigError, nearest
from mechxai.sweeps.config_files import choices_of

_REMARK = re.compile(r"^<!--.*?-->\n", re.MULTILINE)  # the site's own
_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def explain(arguments: Sequence[str]) -> int:
    """``mechxai explain [NAME ...]``: the page's section on an error, or a method whole; returns the exit code.

    Raises:
        ConfigError: neither an error nor a method; names the nearest.
    """
    sections = error_sections()
    if not arguments:
        rows = [{"name": name, "what": _first_sentence(text)} for name, text in sections.items()]
        console.show({"title": "Errors (mechxai explain NAME; NAME may be a method's, too)", "rows": rows})
        return 0
    for name in arguments:
        _one(name, sections)
    return 0


def error_sections() -> dict[str, str]:
    """Name of an error -> its section of the page on errors, as markdown without the heading."""
    page = _REMARK.sub("", errors_page().read_text(encoding="utf-8"))
    _, *sections = re.split(r"^## ", page, flags=re.MULTILINE)
    return {name.strip(): text.strip() for name, _, text in (section.partition("\n") for section in sections)}


def _first_sentence(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".") + "."


def _one(name: str, sections: dict[str, str]) -> None:
    error = next((known for known in sections if known.lower() == name.lower()), None)
    method = _CAPITAL.sub("_", name).lower()
    if error is not None:
        console.show(Markdown(f"# {error}\n\n{sections[error]}"))
    elif method in choices_of("method"):
        console.methods([method])
    else:
        raise ConfigError(
            f"mechxai explain {name} was asked", allowed=nearest(name, [*sections, *choices_of("method")])
        )
