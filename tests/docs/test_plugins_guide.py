"""The example in the guide on plugins works from beginning to end, as a reader would type it."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import DOCS

ROOT = DOCS.parent
_GUIDE = (DOCS / "guides/plugins.md").read_text(encoding="utf-8")
_FILE = re.compile(r"<!-- file (\S+) -->\n```\w+.*\n((?:.*\n)*?)```")
_COMMAND = re.compile(r"<!-- command -->\n```bash\n((?:.*\n)*?)```(?:\n\n<!-- command prints -->\n```text\n(.*)\n```)?")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files that the guide shows."""
    folder = tmp_path_factory.mktemp("plugin")
    for name, content in _FILE.findall(_GUIDE):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


def run(command, folder):
    arguments = shlex.split(command.replace("\\\n", " "))
    assert arguments[0] == "mechxai"
    return subprocess.run(
        [sys.executable, "-P", "-m", "mechxai.cli", *arguments[1:]],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def manifests(folder):
    return [json.loads(path.read_text()) for path in sorted(Path(folder).rglob("manifest.json"))]


def test_the_example_runs(folder):
    (single, printed), (sweep, _) = _COMMAND.findall(_GUIDE)
    done = run(single, folder)
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout
    (manifest,) = manifests(folder)
    assert manifest["status"] == "finished"
    assert manifest["method"] == {"name": "my_method", "k": 1}

    done = run(sweep, folder)
    assert done.returncode == 0, done.stderr
    assert {manifest["status"] for manifest in manifests(folder)} == {"finished"}
    assert len(manifests(folder)) == 4, "one of the four jobs of the sweep is the run before it"


def test_its_fields_are_checked(folder):
    (single, _), _ = _COMMAND.findall(_GUIDE)
    done = run(single.replace("method.k=1", "method.k=0"), folder)
    assert done.returncode == 2, done.stdout
    assert "k=0 is too small" in done.stderr


def test_the_entry_point_is_named_as_the_registry_reads_it():
    from mechxai.methods.registry import ENTRY_POINTS

    assert f'[project.entry-points."{ENTRY_POINTS}"]' in _GUIDE
