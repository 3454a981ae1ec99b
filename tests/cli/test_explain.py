"""An error says where more is said about it, and there it is."""

import inspect

import pytest

from mechxai.cli import main
from mechxai.cli.explain import error_sections
from mechxai.core import errors

CLASSES = [
    name
    for name, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.MechXAIError) and kind.__module__ == errors.__name__
]


def test_every_error_has_a_section_that_says_its_standard_kind():
    sections = error_sections()
    assert sorted(sections) == CLASSES
    for name, text in sections.items():
        kind = getattr(errors, name)
        parent = kind.__bases__[-1].__name__
        assert name == "MechXAIError" or f"`{parent}`" in text, name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("SiteError", "What to do"),
        ("siteerror", "What to do"),
        ("activation_patching", "mx.ActivationPatching("),
        ("ActivationPatching", "mechxai run method=activation_patching"),
    ],
)
def test_explain(capsys, name, said):
    assert main(["explain", name]) == 0
    assert said in capsys.readouterr().out


def test_what_is_neither_is_refused_with_the_nearest(capsys):
    assert main(["explain", "SitError"]) == 2
    assert "Did you mean 'SiteError'" in capsys.readouterr().err
    assert main(["explain"]) == 0
    shown = capsys.readouterr().out
    assert set(CLASSES) <= set(shown.split())
    assert "The disk or the memory" in shown


def test_errors_point_to_their_section(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "method.sit=z"]) == 2
    assert capsys.readouterr().err.endswith("More: mechxai explain ConfigError\n")
    assert main(["run", "debug=tiny", "model=zoo/handmade-ioi", "method.layers=[9]"]) == 2
    said = capsys.readouterr().err
    assert said.splitlines()[-1] == "More: mechxai explain SiteError", said
