"""Every notebook runs from top to bottom."""

import ast
import inspect
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import mechxai as mx

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
LONG = ("02_lenses", "03_probes", "04_attribution", "06_circuits", "07_chain_of_thought")  # a minute or more each


@pytest.mark.parametrize(
    "path",
    [pytest.param(one, marks=[pytest.mark.slow] if one.stem in LONG else []) for one in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_notebook_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("application/vnd.plotly.v1+json" in output.get("data", {}) for output in outputs), "figures are shown"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_imports_mechxai_and_the_standard_library_only(path):
    import sys

    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "code":
            continue
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


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_calls_is_there_and_takes_what_it_is_given(path):
    """Of the long ones too, which run with the slow tests."""
    source = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    called = 0
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not re.fullmatch(r"mx(\.\w+)+", ast.unparse(node.func)):
            continue
        found = mx
        for name in ast.unparse(node.func).split(".")[1:]:
            found = getattr(found, name)
        takes = inspect.signature(found).parameters.values()
        if not any(one.kind is one.VAR_KEYWORD for one in takes):
            assert {given.arg for given in node.keywords if given.arg} <= {one.name for one in takes}, ast.unparse(node)
        called += 1
    assert called > 4
