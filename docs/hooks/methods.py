"""The methods, from the code's own registry: one table of all, and a section for each on its family's page."""

import re
from dataclasses import MISSING, fields
from typing import Any

from griffe import Docstring, DocstringSectionKind
from mkdocs.exceptions import PluginError

from mechxai.cli.methods import methods_markdown
from mechxai.methods import registry

_ALL = "<!-- methods -->"
_FAMILY = re.compile(r"<!-- methods of (\w+) -->")
_SECTION = """## {title} {{#{name}}}

{question}

| | |
|---|---|
| cost | {cost} |
| for it | {pros} |
| against it | {cons} |
| source | {source} |
| in Python | `mx.{kind}(...)(model, batch)` |
| in a run | `mechxai run method={name}` |

{keys}

::: {path}
    options:
      heading_level: 4
      show_root_toc_entry: false
      show_docstring_attributes: false
      members: [__call__, plan]
      filters: []
"""


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """The page with the methods it asks for."""
    del page, config, files
    if _ALL in markdown:
        _check_families(markdown)
        markdown = markdown.replace(_ALL, table())
    return _FAMILY.sub(lambda match: sections(match[1]), markdown)


def table() -> str:
    """The table of ``mechxai methods --markdown``, each name leading to its section."""
    found = methods_markdown()
    for card in registry.cards():
        name = registry.METHODS[card.name].__name__
        found = found.replace(f"| `{name}` |", f"| [`{name}`]({card.family}.md#{card.name}) |")
    return found


def sections(family: str) -> str:
    """What each method of a family asks, costs and takes, then its docstring."""
    return "\n".join(_section(card) for card in registry.cards() if card.family == family)


def _section(card: Any) -> str:
    kind = registry.METHODS[card.name]
    return _SECTION.format(
        title=re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__),
        name=card.name,
        question=card.question,
        cost=card.cost,
        pros=card.pros or "-",
        cons=card.cons or "-",
        source=card.source,
        kind=kind.__name__,
        keys=_keys(kind),
        path=f"{kind.__module__}.{kind.__name__}",
    )


def _keys(kind: type) -> str:
    told = _told(kind)
    rows = [f"| `{field.name}` | `{_default(field)}` | {told.get(field.name, '')} |" for field in fields(kind)]
    return "\n".join(["| key | default | |", "|---|---|---|", *rows]) if rows else "It has no settings."


def _default(field: Any) -> str:
    if field.default is not MISSING:
        return repr(field.default)
    return "required" if field.default_factory is MISSING else repr(field.default_factory())


def _told(kind: type) -> dict[str, str]:
    """What a class's docstring says of each of its fields."""
    parts = Docstring(kind.__doc__ or "", lineno=1).parse("google", warnings=False)
    listed = [part for part in parts if part.kind is DocstringSectionKind.attributes]
    return {one.name: " ".join(one.description.split()) for part in listed for one in part.value}


def _check_families(markdown: str) -> None:
    missing = {card.family for card in registry.cards() if f"({card.family}.md)" not in markdown}
    if missing:
        raise PluginError(f"methods/index.md links no page of the families {sorted(missing)}")
