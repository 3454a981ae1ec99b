"""What every page goes through: the changelog is a page, and marks meant for the tests are not shown."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

_ROOT = Path(__file__).parents[2]
_MARK = re.compile(r"^[ \t]*<!-- (?:run|prints)\b.*?-->\n", re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """The files of the site, with the changelog."""
    files.append(File.generated(config, "changelog.md", content=(_ROOT / "CHANGELOG.md").read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """The page without its marks."""
    del page, config, files
    return _MARK.sub("", markdown)
