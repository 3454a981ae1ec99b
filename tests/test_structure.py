"""Limits on the layout of the package: layers, file sizes, unique names, and where methods and tests lie."""

import ast
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

from mechxai.methods.catalog import FAMILIES, catalog

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mechxai"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_ROOT_MODULES, MAX_LAYERS, MAX_MODULE_LINES, MAX_README_LINES = 3, 12, 300, 100
OLD_ERROR_PHRASES = ("was asked", "Got:")


def module_name(path):
    return str(path.relative_to(ROOT))


def test_the_package_root_holds_few_modules():
    modules = [path.name for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MAX_ROOT_MODULES, modules


def test_the_import_contract_has_few_layers():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = [one for one in settings["tool"]["importlinter"]["contracts"] if one["type"] == "layers"]
    assert len(contract["layers"]) <= MAX_LAYERS


def test_modules_are_short():
    lengths = {module_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: n for name, n in lengths.items() if n > MAX_MODULE_LINES} == {}


def test_the_readme_is_short():
    n_lines = len((ROOT / "README.md").read_text(encoding="utf-8").splitlines())
    assert n_lines <= MAX_README_LINES


@pytest.mark.parametrize("phrase", OLD_ERROR_PHRASES)
def test_no_error_text_uses_the_old_phrases(phrase):
    assert [module_name(path) for path in MODULES if phrase in path.read_text(encoding="utf-8")] == []


def test_class_names_are_unique():
    homes = defaultdict(list)
    for path in MODULES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(module_name(path))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


def test_every_module_of_a_family_registers_a_method():
    registered = {entry.module for entry in catalog().values()}
    files = [
        path for family in FAMILIES for path in (PACKAGE / "methods" / family).glob("*.py") if path.stem != "__init__"
    ]
    assert files
    assert [
        module_name(path) for path in files if f"mechxai.methods.{path.parent.name}.{path.stem}" not in registered
    ] == []


def test_tests_mirror_the_package():
    """Every folder with modules has a folder of tests of its name, or its parent has."""
    tested = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    folders = {path.parent.relative_to(PACKAGE) for path in MODULES}
    covered = tested | {parent for folder in tested for parent in folder.parents}
    covered.discard(Path())
    assert sorted(str(folder) for folder in folders if folder.parts and not {folder, *folder.parents} & covered) == []


def test_folders_of_tests_exist_in_the_package():
    """Apart from folders that test what lies beside the package, families of models, and faults of every part."""
    beside = {"configs", "docs", "experiments", "families", "faults", "notebooks", "packaging"}
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    assert [str(folder) for folder in folders if str(folder) not in beside and not (PACKAGE / folder).is_dir()] == []
