"""The code blocks of the site's pages, with the marks that tell the tests what to do with them.

A comment before a block marks it; the site does not show it. ``<!-- run -->`` runs the block, ``<!-- run slow -->``
runs it with the slow tests only, ``<!-- run raises SiteError -->`` expects an error. ``<!-- prints -->`` marks the
output of the block before it, or its error message, which may be wrapped; ``<!-- prints other numbers -->`` the same
where the numbers depend on the machine.
"""

import re
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
README = DOCS.parent / "README.md"
_BLOCK = re.compile(
    r"^(?P<indent>[ \t]*)<!-- (?P<mark>run|prints)(?P<rest>[^>]*?)-->\n"
    r"[ \t]*```(?P<language>\w+).*\n(?P<text>(?:.*\n)*?)[ \t]*```$",
    re.MULTILINE,
)
_UNIT = re.compile(r"# (?:ms|s|min|h|MiB|GiB)\b")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")


@dataclass
class Block:
    """A block that runs."""

    page: Path
    line: int
    source: str
    slow: bool
    raises: str | None
    prints: str | None = None
    own_numbers: bool = False  # of each machine


def blocks(page: Path) -> list[Block]:
    """The blocks of a page that run, in order."""
    text = page.read_text()
    runnable: list[Block] = []
    for match in _BLOCK.finditer(text):
        body = re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
        if match["mark"] == "prints":
            runnable[-1].prints, runnable[-1].own_numbers = body.strip(), "numbers" in match["rest"]
            continue
        words = match["rest"].split()
        line = text[: match.start("text")].count("\n")
        raises = words[words.index("raises") + 1] if "raises" in words else None
        runnable.append(Block(page, line, body, "slow" in words, raises))
    return runnable


def shows(block: Block, printed: str) -> bool:
    """Whether a page shows what its block printed: the same words, and numbers within rounding of another machine."""
    shown = block.prints or ""
    if block.raises:  # a message is one line, wrapped on the page
        printed, shown = " ".join(printed.split()), " ".join(shown.split())
    if block.own_numbers:
        return _UNIT.sub("#", _words(printed)) == _UNIT.sub("#", _words(shown))
    if _words(printed) != _words(shown):
        return False
    pairs = zip(_NUMBER.findall(printed), _NUMBER.findall(shown), strict=True)
    values = ((_value(one), _value(other)) for one, other in pairs)
    return all(abs(one - other) <= 0.011 + 0.02 * abs(other) for one, other in values)


def _words(text: str) -> str:
    return "\n".join(" ".join(_NUMBER.sub("#", line).split()) for line in text.strip().splitlines())


def _value(number: str) -> float:
    return float(number.replace(",", ""))
