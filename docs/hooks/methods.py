"""The methods, from the package's catalog: one table of all, and a section for each on its family's page."""

import re
from typing import Any

from mkdocs.exceptions import PluginError

from mechxai.cli.methods import methods_markdown
from mechxai.core.signature import REQUIRED, Parameter
from mechxai.methods.catalog import MethodEntry, catalog

_ALL = "<!-- methods -->"
_FAMILY = re.compile(r"<!-- methods of (\w+) -->")
_CALLS = re.compile(r"<!-- calls of (\w+) -->")
_SECTION = """## {title} {{#{name}}}

{question}

| | |
|---|---|
| cost | {cost} |
| strengths | {pros} |
| weaknesses | {cons} |
| source | {source} |
| in Python | `mx.{class_name}(...)(model, batch)` |
| in a run | `mechxai run method={name}` |

{fields}

::: {target}
    options:
      heading_level: 4
      show_root_toc_entry: false
      show_docstring_attributes: false
      members: [__call__, plan]
      filters: []
"""


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """The page with its marks replaced by tables and sections of methods."""
    del page, config, files
    if _ALL in markdown:
        _check_families(markdown)
        markdown = markdown.replace(_ALL, table())
    markdown = _CALLS.sub(lambda match: calls(match[1]), markdown)
    return _FAMILY.sub(lambda match: sections(match[1]), markdown)


def table() -> str:
    """The table of ``mechxai methods --markdown``; each name links to its section."""
    text = methods_markdown()
    for entry in catalog().values():
        link = f"[`{entry.class_name}`]({entry.family}.md#{entry.name})"
        text = text.replace(f"| `{entry.class_name}` |", f"| {link} |")
    return text


def calls(family: str) -> str:
    """The methods of a family with their questions; each name links to its class."""
    rows = [f"| [`mx.{entry.class_name}`][{entry.target}] | {entry.question} |" for entry in _members(family)]
    return "\n".join(["| method | question |", "|---|---|", *rows])


def sections(family: str) -> str:
    """A section for each method of a family: question, cost, fields, then its docstring."""
    return "\n".join(_section(entry) for entry in _members(family))


def _members(family: str) -> list[MethodEntry]:
    members = [entry for entry in catalog().values() if entry.family == family]
    if not members:
        raise PluginError(f"No method is of the family {family!r}")
    return members


def _section(entry: MethodEntry) -> str:
    return _SECTION.format(
        title=re.sub(r"(?<=[a-z])(?=[A-Z])", " ", entry.class_name),
        name=entry.name,
        question=entry.question,
        cost=entry.cost,
        pros=entry.pros or "-",
        cons=entry.cons or "-",
        source=entry.source,
        class_name=entry.class_name,
        fields=_fields(entry),
        target=entry.target,
    )


def _fields(entry: MethodEntry) -> str:
    rows = [f"| `{field.name}` | {_default(field)} | {field.doc} |" for field in entry.fields.values()]
    return "\n".join(["| field | default | meaning |", "|---|---|---|", *rows]) if rows else "It has no fields."


def _default(field: Parameter) -> str:
    return "required" if field.default is REQUIRED else f"`{field.source}`"


def _check_families(markdown: str) -> None:
    families = {entry.family for entry in catalog().values()}
    missing = {family for family in families if f"({family}.md)" not in markdown}
    if missing:
        raise PluginError(f"methods/index.md links no page of the families {sorted(missing)}")
