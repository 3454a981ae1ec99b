"""Text from manifests and results is shown as text: nothing in it steers the terminal."""

import json

import pytest
from rich.table import Table
from rich.text import Text

from mechxai.cli import main
from mechxai.cli.console import show, show_error, show_facts
from mechxai.core.errors import ConfigError
from mechxai.core.pieces import sealed, unsealed

HOSTILE = "a\x1b]0;owned\x07b\x1b[2Jc\x9b31md\re\u202ef\x08g\udce9h"
STEERING = {"\x1b", "\x07", "\x9b", "\r", "\x08", "\u202e", "\udce9"}


def assert_harmless(capsys):
    shown = capsys.readouterr()
    text = shown.out + shown.err
    assert not STEERING & set(text)
    assert "\\x1b" in text
    assert "owned" in text


@pytest.mark.parametrize(
    "item",
    [
        HOSTILE,
        {"title": HOSTILE, "rows": [{HOSTILE: HOSTILE, "value": 1.0}]},
        Text(HOSTILE),
        Table(HOSTILE, title=HOSTILE),
    ],
)
def test_whatever_is_shown_is_text(capsys, item):
    show(item)
    assert_harmless(capsys)


def test_errors_and_facts_are_text(capsys):
    show_error(ConfigError(HOSTILE, allowed=HOSTILE, fix=HOSTILE))
    assert_harmless(capsys)
    show_facts(HOSTILE, {HOSTILE: HOSTILE})
    assert_harmless(capsys)


def spoiled(value):
    """A manifest's content with escape sequences in every text of it."""
    if isinstance(value, dict):
        return {key: spoiled(item) for key, item in value.items()} | {HOSTILE: HOSTILE}
    if isinstance(value, list):
        return [*map(spoiled, value), HOSTILE]
    return f"{value}{HOSTILE}" if isinstance(value, str) else value


def test_runs_of_others_are_listed_and_shown_as_text(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    assert main(["run", "debug=tiny", "model=zoo/handmade-ioi", "task.template=0", "task.order=abba"]) == 0
    (file,) = tmp_path.rglob("manifest.json")
    manifest = unsealed(file.read_text())
    file.write_text(sealed(spoiled(manifest) | {"run": manifest["run"]}))
    capsys.readouterr()
    for arguments in (["runs"], ["runs", "show", str(file.parent)]):
        assert main(arguments) == 0
        assert_harmless(capsys)
    for damage in ({"cost": 5}, {"cost": {"seconds": "x"}}, {"notes": 5, "files": {"a": 1}}, {"finished": [1]}):
        file.write_text(sealed(manifest | damage))
        assert main(["runs"]) == 0
        assert main(["runs", "show", str(file.parent)]) == 0
    file.rename(file.with_name("unfinished.json"))
    spoiled_text = sealed(spoiled(manifest) | {"run": manifest["run"]})
    file.with_name("unfinished.json").write_text(spoiled_text)
    file.with_name("result.nc").unlink()
    (file.parent / ".hydra" / "overrides.yaml").write_text(json.dumps([f"name={HOSTILE}"]))
    capsys.readouterr()
    for arguments in (["runs"], ["runs", "show", str(file.parent)], ["runs", "clean", "run=*", "--yes"]):
        main(arguments)
        assert_harmless(capsys)


def test_what_the_user_types_is_shown_as_text(capsys):
    for arguments in ([f"x{HOSTILE}"], ["run", f"name={HOSTILE}"], ["runs", HOSTILE], ["explain", HOSTILE]):
        assert main(arguments) == 2
        assert_harmless(capsys)
