"""Signatures read from source text are those that Python has, and annotations refuse what they do not name."""

import ast
import inspect
import subprocess
import sys

import pytest

import mechxai as mx
from mechxai.core.annotation import Annotation, read_annotation
from mechxai.core.errors import ConfigError
from mechxai.core.signature import REQUIRED, descriptions, read_signature
from mechxai.core.source import UNKNOWN, evaluate, find
from mechxai.tasks import TASKS


def annotation(text, module="mechxai.core.signature"):
    return read_annotation(module, ast.parse(text, mode="eval").body)


@pytest.mark.parametrize(
    ("text", "good", "bad"),
    [
        ("int", [1, -3], ["a", 1.5, True, None]),
        ("int | None", [1, None], ["a"]),
        ("float", [1.5, 2], ["a", True]),
        ("bool", [True], [1, "yes"]),
        ("str", ["a", ""], [1, None]),
        ("Literal['a', 'b']", ["a"], ["c", None, 1]),
        ("Literal['a', 2] | None", ["a", 2, None], ["c", 3]),
        ("Sequence[int]", [[1, 2], (), 3], [["a"], "a", [None]]),
        ("Sequence[Literal['x', 'y']] | None", [["x"], None, "x"], [["z"], "z"]),
        ("str | Sequence[str]", ["a", ["a", "b"]], [[1], 1]),
        ("Callable[[int], str]", [1, "a", None], []),
        ("int | Callable[[int], str]", [1, "a", None], []),
    ],
)
def test_values_that_an_annotation_takes(text, good, bad):
    read = annotation(text)
    for value in good:
        read.check("key", value)
    for value in bad:
        with pytest.raises(ConfigError, match="key="):
            read.check("key", value)


def test_errors_name_the_nearest_choice():
    with pytest.raises(ConfigError, match=r"is not allowed. Did you mean 'denoise'\? Allowed: denoise, noise"):
        annotation("Direction", "mechxai.engine.contrast").check("key", "denois")
    with pytest.raises(ConfigError, match="key='a' is not a whole number or null"):
        annotation("int | None").check("key", "a")


def test_aliases_are_followed_through_imports():
    read = annotation("Direction", "mechxai.methods.patching.activation_patching")
    assert read.choices == ("denoise", "noise")
    assert read.values == ("denoise", "noise")
    assert Annotation(frozenset({"bool"})).values == ("true", "false")
    assert find("mechxai.tasks", "ioi").module == "mechxai.tasks.generators"
    assert find("mechxai.tasks", "no_such_name") is None
    assert find("os", "path") is None


def test_expressions_that_the_text_does_not_show_are_unknown():
    def value(text):
        return evaluate("mechxai.core.signature", ast.parse(text, mode="eval").body)

    assert value("(1, -2.5, 'a')") == (1, -2.5, "a")
    assert value("[]") == ()
    assert value("REQUIRED") is UNKNOWN
    assert value("f(1)") is UNKNOWN
    assert value("(1, f(1))") is UNKNOWN


@pytest.mark.parametrize("name", sorted(TASKS))
def test_the_signature_of_a_task_is_its_own(name):
    read = read_signature("mechxai.tasks", name)
    parameters = inspect.signature(TASKS[name]).parameters
    assert list(read.parameters) == list(parameters)
    for key, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty:
            assert read.parameters[key].default is REQUIRED
        elif read.parameters[key].default is not UNKNOWN and not isinstance(read.parameters[key].default, dict):
            assert read.parameters[key].default == parameter.default
    assert read.doc.splitlines()[0] == inspect.getdoc(TASKS[name]).splitlines()[0]


def test_the_signature_of_load_is_its_own():
    read = read_signature("mechxai.model.load", "load")
    assert list(read.parameters) == list(inspect.signature(mx.load).parameters)
    assert "bridge" in read.parameters["backend"].annotation.values


def test_descriptions_of_several_names_and_lines():
    doc = """First line.

    Args:
        a: one,
            two.
        b, c: three.

    Returns:
        d: four.
    """
    assert descriptions(inspect.cleandoc(doc)) == {"a": "one, two.", "b": "three.", "c": "three."}


def test_reading_imports_nothing_heavy():
    code = (
        "import sys; from mechxai.methods.catalog import catalog; assert len(catalog()) > 40;"
        "from mechxai.core.signature import read_signature; assert read_signature('mechxai.tasks', 'ioi');"
        "print([name for name in ('torch', 'numpy', 'hydra', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
