"""The catalog lists what the method files define, and nothing else lists methods: a new file is a new method."""

import dataclasses
import os
import shutil
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import mechxai as mx
from mechxai import _public
from mechxai._resources import configs_dir
from mechxai.core.fields import choices
from mechxai.core.signature import REQUIRED
from mechxai.core.source import UNKNOWN
from mechxai.methods import registry
from mechxai.methods.catalog import FAMILIES, catalog
from mechxai.sweeps.method_configs import method_yaml

ROOT = Path(__file__).resolve().parents[2]
NEW_METHOD = '''"""Mean answer: the mean of the metric over the clean prompts."""

from dataclasses import dataclass
from typing import Any, Literal, final

import xarray as xr

from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.result import Result, variable
from mechxai.methods.result_parts import run_info

Half = Literal["all", "first"]


@final
@register(
    MethodCard(
        name="mean_answer",
        family="patching",
        question="How large is the metric on the clean prompts?",
        cost="one forward pass per prompt",
        source="this test",
    )
)
@dataclass(frozen=True)
class MeanAnswer(Method):
    """The metric of every clean prompt, and its mean.

    Attributes:
        metric: what is measured.
        half: the prompts that count.
    """

    metric: AnyMetric = "logit_diff"
    half: Half = "all"

    def __call__(self, model: Any, batch: Any, *, execution: Any = None) -> Result:
        """``value`` [prompt]."""
        metric = as_metric(self.metric)
        values = metric(model.logits(batch.clean), batch).numpy()
        data = {"value": variable(("prompt",), values, metric.unit, "metric of the clean prompts")}
        return Result(xr.Dataset(data), run_info(self, model, batch, cost={"forward_passes": float(len(batch))}))
'''


@pytest.mark.parametrize("name", sorted(catalog()))
def test_an_entry_equals_the_class_it_was_read_from(name):
    entry, kind = catalog()[name], registry.METHODS[name]
    assert entry.target == f"{kind.__module__}.{kind.__qualname__}"
    assert all(getattr(entry, field.name) == getattr(kind.card, field.name) for field in dataclasses.fields(kind.card))
    assert list(entry.fields) == [field.name for field in dataclasses.fields(kind)]
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        read = entry.fields[field.name]
        assert read.default is not UNKNOWN, f"the default of {field.name} is not a literal"
        assert read.default is not REQUIRED, f"{field.name} has no default, which a config needs"
        if not isinstance(read.default, dict):  # a method: {"_target_": ...}
            assert read.default == field.default, field.name
        if not read.annotation.open:
            assert read.annotation.values == (choices(hints[field.name]) or read.annotation.values), field.name


def test_every_family_is_known_and_every_file_holds_a_method():
    assert {entry.family for entry in catalog().values()} == set(FAMILIES)
    assert {entry.module.split(".")[2] for entry in catalog().values()} == set(FAMILIES)
    assert all(entry.family == entry.module.split(".")[2] for entry in catalog().values())
    assert set(registry.METHODS) >= set(catalog())


@pytest.mark.parametrize("name", sorted(catalog()))
def test_the_config_file_is_the_one_that_the_fields_give(name):
    path = configs_dir() / "method" / f"{name}.yaml"
    assert path.read_text(encoding="utf-8") == method_yaml(catalog()[name]), (
        "run python -m mechxai.sweeps.method_configs"
    )


def test_no_config_file_is_left_of_a_method_that_is_gone():
    assert {path.stem for path in (configs_dir() / "method").glob("*.yaml")} == set(catalog())


def test_the_stub_lists_every_public_name():
    stub = Path(mx.__file__).with_name("__init__.pyi").read_text(encoding="utf-8")
    assert stub == _public.stub(), "run python -m mechxai._public"
    for entry in catalog().values():
        assert getattr(mx, entry.class_name) is registry.METHODS[entry.name]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package with one more method file, and a function that runs Python in it."""
    root = tmp_path_factory.mktemp("copy")
    for folder in ("mechxai", "configs", "docs"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "mechxai/methods/patching/mean_answer.py").write_text(NEW_METHOD, encoding="utf-8")

    def run(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "200"}
        done = subprocess.run(
            [sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_new_file_is_listed_completed_and_public(copy):
    assert "mean_answer" in copy("-m", "mechxai.cli", "methods")
    shown = copy("-m", "mechxai.cli", "methods", "MeanAnswer")
    assert "all, first" in shown
    assert "this test" in shown
    assert "| `MeanAnswer` | How large is the metric" in copy("-m", "mechxai.cli", "methods", "--markdown")
    assert "method=mean_answer" in copy("-m", "mechxai.cli", "completion", "candidates", "--", "run", "method=mean")
    line = ["run", "method=mean_answer", "method.half="]
    assert "method.half=first" in copy("-m", "mechxai.cli", "completion", "candidates", "--", *line)
    assert copy("-c", "import mechxai as mx; print(mx.MeanAnswer().half)") == "all\n"


def test_a_new_file_runs(copy):
    command = ["run", "method=mean_answer", "model=zoo/handmade-ioi", "task.n=4", "tracker=none", "figure.png=false"]
    assert "mean_answer: done in" in copy("-m", "mechxai.cli", *command, "metric=prob", "method.half=first")


def test_a_new_file_is_in_the_tables_of_the_documentation(copy):
    code = """import pathlib, sys
sys.path.insert(0, 'docs/hooks')
import methods
for name in ('index', 'patching'):
    text = pathlib.Path(f'docs/methods/{name}.md').read_text()
    print(methods.on_page_markdown(text, page=None, config=None, files=None))
"""
    pages = copy("-c", code)
    assert "[`MeanAnswer`](patching.md#mean_answer)" in pages
    assert "mechxai run method=mean_answer" in pages
