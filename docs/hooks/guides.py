"""Guides: the pages of docs/guides, and a page and a download for each notebook, with its saved text and pictures."""

import base64
import re
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.structure.files import File, Files

_DOCS = Path(__file__).parents[1]
_NOTEBOOKS = sorted((_DOCS.parent / "notebooks").glob("*.ipynb"))
_NOTE = """!!! note "A notebook"
    This page shows [notebooks/{name}]({name}). To run it, open that file in Jupyter or an editor that supports
    notebooks, with the kernel of the environment in which MechXAI is installed. Its models ship with the package, so
    it downloads nothing.
"""
_LONGEST = 40  # lines of an output


def on_config(config: Any) -> Any:
    """The navigation with every notebook and every page of docs/guides."""
    section = next(part["Guides"] for part in config["nav"] if "Guides" in part)
    pages = sorted(path.name for path in (_DOCS / "guides").glob("*.md") if path.name != "index.md")
    section[1:] = [f"guides/{name}" for name in [*(f"{path.stem}.md" for path in _NOTEBOOKS), *pages]]
    return config


def on_files(files: Files, *, config: Any) -> Files:
    """The files of the site with each notebook's page, pictures and download."""
    for path in _NOTEBOOKS:
        markdown, pictures = page(path)
        files.append(File.generated(config, f"guides/{path.stem}.md", content=markdown))
        files.append(File.generated(config, f"guides/{path.name}", abs_src_path=str(path)))
        for name, picture in pictures.items():
            files.append(File.generated(config, f"guides/{name}", content=picture))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """The page on guides with the list of notebooks."""
    del config, files
    return markdown.replace("<!-- notebooks -->", listing()) if page.file.src_uri == "guides/index.md" else markdown


def page(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures by file name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in nbformat.read(path, as_version=4).cells:
        if not cell.source.strip():
            continue
        if cell.cell_type != "code":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            picture = output.get("data", {}).get("image/png")
            if picture:
                name = f"{path.stem}-{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode(picture)
                parts.append(f"![Output of the cell above]({name})")
            elif text := _text(output):
                parts.append(f"```text\n{text}\n```")
    return "\n\n".join([parts[0], _NOTE.format(name=path.name), *parts[1:]]) + "\n", pictures


def _text(output: Any) -> str:
    """What a cell printed or returned, as text; empty for warnings and for HTML without a text form."""
    if output.get("name") == "stderr":
        return ""
    text = output.get("text") or output.get("data", {}).get("text/plain", "")
    lines = text.rstrip().splitlines()
    return "\n".join([*lines[:_LONGEST], "..."] if len(lines) > _LONGEST else lines)


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
