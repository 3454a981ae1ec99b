"""The site builds without a warning, no link in it is broken, and it loads nothing from a network."""

import os
import re
import runpy
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

from mechxai._public import public_names
from mechxai.methods.catalog import catalog

pytest.importorskip("mkdocs")
pytest.importorskip("mkdocstrings_handlers.python")

ROOT = Path(__file__).resolve().parents[2]
_LOADED = {
    ("script", "src"),
    ("link", "href"),
    ("img", "src"),
    ("iframe", "src"),
    ("source", "src"),
    ("object", "data"),
}
_FETCHES = re.compile(r"@import|url\(\s*['\"]?(?:https?:)?//")


class Page(HTMLParser):
    """What a page names: its anchors, its links, and what it loads to be shown."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.loads, self.words = set(), [], [], []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self._inside = tag
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        for name in ("href", "src", "data"):
            if given.get(name):
                self.links.append(given[name])
                if (tag, name) in _LOADED:
                    self.loads.append(given[name])
        self.words += [given["style"]] if given.get("style") else []

    def handle_data(self, data):
        self.words += [data] if self._inside == "style" else []


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site").resolve()
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    made = subprocess.run(command, cwd=ROOT, env=here, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr  # a warning is a failure
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path.read_text()) for path in site.rglob("*.html")}


def test_no_link_is_broken(site, pages):
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                assert parts.scheme in ("https", "http", "mailto", "data"), f"{path}: {link}"
                assert parts.netloc or parts.scheme in ("mailto", "data"), f"{path}: {link}"
                continue
            start = site if parts.path.startswith("/") or path.name == "404.html" else path.parent
            target = (start / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            found = target.is_file() and (
                not parts.fragment or target not in pages or unquote(parts.fragment) in pages[target].anchors
            )
            broken += [] if found else [f"{path.relative_to(site)}: {link}"]
    assert not broken


def test_nothing_is_loaded_from_a_network(site, pages):
    for path, page in pages.items():
        away = [link for link in page.loads if urlsplit(link).netloc]
        assert not away, f"{path}: {away}"
        assert not [text for text in page.words if _FETCHES.search(text)], path
    for path in site.rglob("*.css"):
        assert not _FETCHES.search(path.read_text()), path


def test_every_public_name_is_documented(pages):
    anchors = set().union(*(page.anchors for page in pages.values()))
    assert {f"{module}.{name}" for name, module in public_names().items()} <= anchors


def test_every_method_has_its_row_and_section(site, pages):
    table = (site / "methods/index.html").read_text()
    for entry in catalog().values():
        assert f'href="{entry.family}.html#{entry.name}"' in table
        assert entry.name in pages[site / f"methods/{entry.family}.html"].anchors


def test_every_notebook_has_a_page_that_links_it(site, pages):
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        page = site / "guides" / f"{notebook.stem}.html"
        assert notebook.name in pages[page].links
        assert (page.parent / notebook.name).read_bytes() == notebook.read_bytes()


def test_a_notebook_page_shows_saved_text_and_pictures(tmp_path):
    hook = runpy.run_path(str(ROOT / "docs/hooks/guides.py"))
    new = nbformat.v4
    outputs = [
        new.new_output("stream", name="stdout", text="1.0\n"),
        new.new_output("stream", name="stderr", text="a warning\n"),
        new.new_output("display_data", data={"image/png": "iVBORw==", "text/html": "<b>figure</b>"}),
    ]
    cells = [new.new_markdown_cell("# Title\n\nText."), new.new_code_cell("print(1.0)", outputs=outputs)]
    nbformat.write(new.new_notebook(cells=cells), tmp_path / "08_new.ipynb")
    markdown, pictures = hook["page"](tmp_path / "08_new.ipynb")
    assert "```python\nprint(1.0)\n```\n\n```text\n1.0\n```\n\n![Output of the cell above](08_new-1.png)" in markdown
    assert "a warning" not in markdown
    assert pictures == {"08_new-1.png": b"\x89PNG"}
