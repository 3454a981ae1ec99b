"""Text from manifests and results is shown as text: nothing in it steers the terminal."""

import json

import pytest
from rich.table import Table
from rich.text import Text

from mechxai.cli import main
from mechxai.cli.console import show, show_error, show_facts
from mechxai.core.errors import ConfigError

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


def hostile_run(root, **changes):
    """A run folder that somebody sent, with escape sequences in every text of its manifest."""
    folder = root / "outputs" / "x" / "zoo-ioi" / "logit_lens-0123456789"
    folder.mkdir(parents=True)
    known = {"name": HOSTILE, "hash": HOSTILE}
    manifest = {
        "experiment": HOSTILE,
        "run_id": "0123456789",
        "method": {"name": HOSTILE, "site": HOSTILE},
        "model": known,
        "task": {"name": HOSTILE, "n": HOSTILE},
        "seed": 0,
        "started": HOSTILE,
        "finished": HOSTILE,
        "versions": {HOSTILE: HOSTILE},
        "commit": HOSTILE,
        "cost": {"seconds": 1.0},
        "notes": [HOSTILE],
        "files": [HOSTILE],
    }
    (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}))
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps([f"name={HOSTILE}"]))
    return folder


def test_runs_of_others_are_listed_and_shown_as_text(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    folder = hostile_run(tmp_path)
    for arguments in (["runs"], ["runs", "show", str(folder)], ["runs", "clean", "run=*", "--yes"]):
        main(arguments)
        shown = capsys.readouterr()
        assert not STEERING & set(shown.out + shown.err), arguments


def test_what_the_user_types_is_shown_as_text(capsys):
    for arguments in ([f"x{HOSTILE}"], ["run", f"name={HOSTILE}"], ["runs", HOSTILE], ["explain", HOSTILE]):
        assert main(arguments) == 2
        assert_harmless(capsys)
