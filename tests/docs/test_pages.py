"""The code on the site and in the README runs, and prints what the page shows."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from mechxai.core import errors
from mechxai.methods import registry as methods
from tests.docs.blocks import DOCS, PAGES, README, blocks, shows

_TEXTS = [README, *PAGES]
_QUICK = [page for page in _TEXTS if any(not block.slow for block in blocks(page))]
_SLOW = [page for page in _TEXTS if any(block.slow for block in blocks(page))]
_CONFIGS = DOCS.parent / "configs"
_WIDEST = 88  # characters of a code line
_CHOICE = re.compile(r"\b(experiment|method|model|task|metric|figure|tracker|sweep|debug)=([\w/,*-]+)")


def name(page: Path) -> str:
    return str(page.relative_to(DOCS.parent if page == README else DOCS).with_suffix(""))


@pytest.fixture(autouse=True)
def registry():
    """Removes the methods that a page registers."""
    before = dict(methods.METHODS)
    yield
    methods.METHODS.clear()
    methods.METHODS.update(before)


def run(page, folder, monkeypatch, *, slow):
    monkeypatch.chdir(folder)
    namespace = {"__name__": "page"}
    for block in blocks(page):
        if block.slow and not slow:
            continue
        printed = io.StringIO()
        code = compile("\n" * block.line + block.source, str(page), "exec")
        expected = pytest.raises(getattr(errors, block.raises)) if block.raises else contextlib.nullcontext()
        with contextlib.redirect_stdout(printed), expected as caught:
            exec(code, namespace)
        got = str(caught.value) if block.raises else printed.getvalue()
        if block.prints is not None:
            assert shows(block, got), f"{page}:{block.line} prints\n{got}"


@pytest.mark.parametrize("page", _QUICK, ids=name)
def test_page_runs(page, tmp_path, monkeypatch):
    run(page, tmp_path, monkeypatch, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", _SLOW, ids=name)
def test_page_runs_whole(page, tmp_path, monkeypatch):
    run(page, tmp_path, monkeypatch, slow=True)


def test_every_mark_is_read():
    for page in _TEXTS:
        marks = len(re.findall(r"<!-- run\b", page.read_text()))
        assert marks == len(blocks(page)), page


@pytest.mark.parametrize("page", _TEXTS, ids=name)
def test_code_fits_the_page(page):
    code = re.findall(r"```\w.*?\n(.*?)```", page.read_text(), re.DOTALL)
    assert [line for block in code for line in block.splitlines() if len(line) > _WIDEST] == []


@pytest.mark.parametrize("page", _TEXTS, ids=name)
def test_choices_in_shell_commands_exist(page):
    text = page.read_text()
    shown = {(path.parent.name, path.stem) for path in map(Path, re.findall(r"<!-- file conf/(\S+) -->", text))}
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        for group, choices in _CHOICE.findall(block):
            for choice in choices.split(","):
                exists = (_CONFIGS / group / f"{choice}.yaml").is_file() or (group, choice) in shown
                assert "*" in choice or exists, f"{group}={choice}"


def test_every_error_has_its_section():
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.MechXAIError)}
    sections = re.findall(r"^## (\w+)$", (DOCS / "errors.md").read_text(), re.MULTILINE)
    assert sorted(sections) == sorted(kind.__name__ for kind in kinds)
