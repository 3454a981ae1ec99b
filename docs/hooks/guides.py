"""Guides: the pages of docs/guides and the notebooks, each notebook as a page and as a file to download."""

import re
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.structure.files import File, Files

_DOCS = Path(__file__).parents[1]
_NOTEBOOKS = sorted((_DOCS.parent / "notebooks").glob("*.ipynb"))
_HOW = """!!! note "A notebook"
    This page is [notebooks/{name}]({name}) without its outputs, many of them figures to point at. To run it, open that
    file in Jupyter or an editor that knows notebooks, with the kernel of the environment in which MechXAI is
    installed. Its models ship with the package, so it needs no download.
"""


def on_config(config: Any) -> Any:
    """The navigation with every guide in it: a guide is there once its file is."""
    section = next(part["Guides"] for part in config["nav"] if "Guides" in part)
    pages = sorted(path.name for path in (_DOCS / "guides").glob("*.md") if path.name != "index.md")
    section[1:] = [f"guides/{name}" for name in [*(f"{path.stem}.md" for path in _NOTEBOOKS), *pages]]
    return config


def on_files(files: Files, *, config: Any) -> Files:
    """The files of the site, with two for each notebook."""
    for path in _NOTEBOOKS:
        files.append(File.generated(config, f"guides/{path.stem}.md", content=page(path)))
        files.append(File.generated(config, f"guides/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """The list of guides, in the page that asks for it."""
    del config, files
    return markdown.replace("<!-- notebooks -->", listing()) if page.file.src_uri == "guides/index.md" else markdown


def page(path: Path) -> str:
    """A notebook as Markdown."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.source.strip()]
    parts = [f"```python\n{cell.source}\n```" if cell.cell_type == "code" else cell.source for cell in cells]
    return "\n\n".join([parts[0], _HOW.format(name=path.name), *parts[1:]]) + "\n"


def listing() -> str:
    """Every notebook with its title and its first sentence."""
    rows = []
    for path in _NOTEBOOKS:
        title, text = re.match(
            r"# (.+?)\n\s*(.*)", nbformat.read(path, as_version=4).cells[0].source, re.DOTALL
        ).groups()
        first = re.split(r"(?<=[.?])\s", " ".join(text.split("\n\n")[0].split()))[0]
        rows.append(f"- [{title}]({path.stem}.md). {first}")
    return "\n".join(rows)
