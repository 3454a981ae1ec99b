"""``mechxai explain``: what an error means and what to do about it; or a method in full."""

import re
from collections.abc import Sequence

from mechxai._resources import errors_page
from mechxai.cli.console import OK, show
from mechxai.cli.methods import method_entry, show_method
from mechxai.core.errors import ConfigError, unknown
from mechxai.methods.catalog import catalog

HELP = """What an error means and what to do about it; or a method in full.

  mechxai explain                 the errors
  mechxai explain SiteError       one of them
  mechxai explain logit_lens      a method: what it computes, its signs and pitfalls"""

_COMMENT = re.compile(r"^<!--.*?-->\n", re.MULTILINE)  # for the documentation site


def main(arguments: Sequence[str]) -> int:
    """``mechxai explain [NAME ...]``; returns the exit code.

    Raises:
        ConfigError: neither an error nor a method has that name; names the nearest.
    """
    sections = error_sections()
    if not arguments:
        rows = [{"name": name, "meaning": _first_sentence(text)} for name, text in sections.items()]
        show({"title": "Errors (mechxai explain NAME; NAME may be a method's, too)", "rows": rows})
    for name in arguments:
        _explain(name, sections)
    return OK


def error_sections() -> dict[str, str]:
    """Name of an error -> its section of the page on errors, as Markdown without the heading."""
    page = _COMMENT.sub("", errors_page().read_text(encoding="utf-8"))
    _, *sections = re.split(r"^## ", page, flags=re.MULTILINE)
    return {name.strip(): text.strip() for name, _, text in (section.partition("\n") for section in sections)}


def _first_sentence(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".") + "."


def _explain(name: str, sections: dict[str, str]) -> None:
    error = next((known for known in sections if known.lower() == name.lower()), None)
    if error is not None:
        from rich.markdown import Markdown  # noqa: PLC0415 - keeps other commands quick

        show(Markdown(f"# {error}\n\n{sections[error]}"))
        return
    classes = [entry.class_name for entry in catalog().values()]
    if name not in catalog() and name not in classes:
        raise ConfigError(unknown("error or method", name, [*sections, *catalog(), *classes]))
    show_method(method_entry(name))
