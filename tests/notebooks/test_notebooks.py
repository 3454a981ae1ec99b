"""Every notebook runs from top to bottom; every notebook is saved with the outputs of a complete run."""

import ast
import base64
import inspect
import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import mechxai as mx

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LONG = ("02_lenses", "03_probes", "04_attribution", "06_circuits", "07_chain_of_thought")  # up to a minute each
FIGURE, PNG = "application/vnd.plotly.v1+json", "image/png"
DRAWS = re.compile(r"\.plot\(|\bmx\.(?:plot|circuit_figure|routes_figure|token_bars|method_rows|attention_html)\(")
MOST_BYTES = 4 * 2**20  # of all notebooks together
LONGEST_HTML = 50_000  # characters of an output
MACHINE_PATH = re.compile(
    r"(?<![\w.:/])/(?:bin|builds|content|data|etc|home|mnt|opt|private|proc|root|srv|tmp|usr|Users|var|work)/"
    r"|\b[A-Za-z]:\\|file://|site-packages"
)
TIME_OF_DAY = re.compile(r"\b\d{1,2}:\d{2}:\d{2}\b|\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}")
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def outputs_of(cells):
    return [output for cell in cells for output in cell.outputs]


def texts(output):
    """The text of an output in every form but pictures."""
    data = output.get("data", {})
    return [output.get("text", ""), *(text for kind, text in data.items() if not kind.startswith("image/"))]


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] if path.stem in LONG else []) for path in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_notebook_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = outputs_of(cell for cell in notebook.cells if cell.cell_type == "code")
    assert not [output for output in outputs if output.output_type == "error"]
    assert any(FIGURE in output.get("data", {}) for output in outputs), "figures are shown"


@every_notebook
def test_every_code_cell_is_saved_as_run_once_from_top_to_bottom(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run: make notebooks"
    outputs = outputs_of(cells)
    assert outputs
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]


@every_notebook
def test_every_cell_that_draws_is_saved_with_a_png(path):
    drawing = [cell for cell in code_cells(path) if DRAWS.search(cell.source)]
    assert drawing
    for cell in drawing:
        images = [output.data[PNG] for output in cell.outputs if PNG in output.get("data", {})]
        assert len(images) == 1, cell.source
        assert base64.b64decode(images[0]).startswith(b"\x89PNG"), cell.source


@every_notebook
def test_saved_outputs_suit_github(path):
    """GitHub shows neither plotly figures nor scripts."""
    for output in outputs_of(code_cells(path)):
        data = output.get("data", {})
        assert FIGURE not in data
        assert not [kind for kind in data if "widget" in kind]
        assert len(data.get("text/html", "")) <= LONGEST_HTML
        assert "<script" not in data.get("text/html", "")
        assert len(data.get("text/plain", "")) <= LONGEST_HTML


@every_notebook
def test_saved_outputs_hold_no_machine_path_and_no_time(path):
    for output in outputs_of(code_cells(path)):
        for text in texts(output):
            assert not MACHINE_PATH.search(text), text
            assert not TIME_OF_DAY.search(text), text
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert set(notebook["metadata"]["language_info"]) == {"name"}, "the version of Python belongs to a machine"
    assert all(cell["metadata"] == {} for cell in notebook["cells"]), "cells hold no execution times"


def test_notebooks_are_small():
    assert sum(path.stat().st_size for path in NOTEBOOKS) < MOST_BYTES


@every_notebook
def test_code_lines_fit_the_page(path):
    for cell in code_cells(path):
        assert max(map(len, cell.source.splitlines())) <= 100, cell.source


@every_notebook
def test_notebook_imports_mechxai_and_the_standard_library_only(path):
    for cell in code_cells(path):
        for node in ast.walk(ast.parse(cell.source)):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            for name in names:
                assert name.split(".")[0] in {"mechxai", *sys.stdlib_module_names}


@every_notebook
def test_called_functions_exist_and_take_their_keywords(path):
    """Fast enough for every test run, the long notebooks included."""
    source = "\n".join(cell.source for cell in code_cells(path))
    called = 0
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not re.fullmatch(r"mx(\.\w+)+", ast.unparse(node.func)):
            continue
        function = mx
        for name in ast.unparse(node.func).split(".")[1:]:
            function = getattr(function, name)
        parameters = inspect.signature(function).parameters.values()
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            keywords = {keyword.arg for keyword in node.keywords if keyword.arg}
            assert keywords <= {parameter.name for parameter in parameters}, ast.unparse(node)
        called += 1
    assert called > 4
