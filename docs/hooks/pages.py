"""Every page: adds the changelog to the site, and removes the marks that only the tests read."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

_ROOT = Path(__file__).parents[2]
_SHOT = "images/explorer.png"
_EXPLORER = f"""## The explorer

`mechxai explore` opens a page in the browser: type a prompt, and see what each layer, head and token does.

![The explorer]({_SHOT})
"""
_MARK = re.compile(r"^[ \t]*<!-- (?:run|prints|file|command)\b.*?-->\n", re.MULTILINE)


def on_files(files: Files, *, config: Any) -> Files:
    """The files of the site and the changelog."""
    files.append(File.generated(config, "changelog.md", content=(_ROOT / "CHANGELOG.md").read_text()))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """The page without test marks; the mark ``<!-- explorer -->`` becomes the explorer's picture, if there is one."""
    del page, config
    explorer = _EXPLORER if files.get_file_from_path(_SHOT) else ""
    return _MARK.sub("", markdown).replace("<!-- explorer -->\n", explorer)
