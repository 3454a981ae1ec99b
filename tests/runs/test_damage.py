"""A damaged file of a finished run is noticed, set aside and made again by the same command, and only that."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from mechxai.cli import main
from mechxai.core.result import Result
from mechxai.runs.locks import folder_lock
from mechxai.runs.query import RunRecord, list_runs
from tests.faults.damage import flip_bit

COMMAND = (
    "run",
    "debug=tiny",
    "model=zoo/handmade-ioi",
    "task.template=0",
    "task.order=abba",
    "name=own",
    "output=outputs",
    "method.site=z",
    "method.over=[layer,head]",
    "tracker=none",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("damage")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert main(list(COMMAND)) == 0
    return root


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    """The folder of a finished run, in a copy of its outputs."""
    shutil.copytree(finished / "outputs", tmp_path / "outputs")
    monkeypatch.chdir(tmp_path)
    (record,) = list_runs(Path("outputs"))
    return record.files


def values(folder):
    return Result.load(folder.result).data["per_example"].values


def statuses(folder):
    """The status by every reader: the folder, the list, and a filter."""
    listed = {record.folder: record.status for record in list_runs(Path("outputs"))}
    (filtered,) = (
        status
        for status in ("finished", "damaged", "unfinished", "running")
        if list_runs(Path("outputs"), {"status": status})
    )
    return folder.status, listed[folder.path], filtered


@pytest.mark.parametrize("file", ["result.nc", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "text"])
def test_a_damaged_file_is_noticed_by_all_and_made_again(run, capsys, file, damage):
    before, path = values(run), run.path / file
    sound = path.read_bytes()
    content = {"flip": flip_bit(sound, random.Random(3)), "cut": sound[: len(sound) // 2], "empty": b"", "text": b"no"}
    path.write_bytes(content[damage])
    assert statuses(run) == ("damaged",) * 3
    capsys.readouterr()
    assert main(list(COMMAND)) == 0
    assert "already finished, nothing computed" not in capsys.readouterr().out
    assert statuses(run) == ("finished",) * 3
    np.testing.assert_array_equal(values(run), before)
    assert not run.damaged_files()
    assert main(list(COMMAND)) == 0
    assert "nothing computed" in capsys.readouterr().out


@pytest.mark.parametrize("file", ["report.html", "figures/z.html", ".hydra/config.yaml", ".hydra/overrides.yaml"])
@pytest.mark.parametrize("damage", ["flip", "missing"])
def test_pages_and_configuration_are_written_again_without_computing(run, capsys, file, damage):
    path = run.path / file
    sound = path.read_bytes()
    path.write_bytes(flip_bit(sound, random.Random(1)))
    if damage == "missing":
        path.unlink()
    assert run.damaged_files() == [file]
    written = run.result.stat().st_mtime_ns
    assert main(list(COMMAND)) == 0
    assert not run.damaged_files()
    assert run.result.stat().st_mtime_ns == written
    assert "done in" not in capsys.readouterr().out


def test_the_damaged_result_is_set_aside(run):
    damaged = run.result.read_bytes()[:-1000]
    run.result.write_bytes(damaged)
    assert main(list(COMMAND)) == 0
    assert run.result.with_name("result.nc.damaged").read_bytes() == damaged


def test_a_result_without_manifest_is_not_computed_again(run, capsys):
    """Killed between the result and the manifest: the numbers are there."""
    before = run.result.read_bytes()
    (run.path / "manifest.json").unlink()
    shutil.rmtree(run.figures)
    assert statuses(run) == ("unfinished",) * 3
    assert main(list(COMMAND)) == 0
    assert run.result.read_bytes() == before
    assert statuses(run) == ("finished",) * 3
    assert (run.figures / "z.html").is_file()


def test_the_manifest_names_every_file_with_its_checksum(run):
    content = json.loads((run.path / "manifest.json").read_text())
    assert {"result.nc", "report.html", "figures/z.html", ".hydra/config.yaml"} <= set(content["files"])
    assert content["checksum"]
    content["cost"]["seconds"] += 1
    (run.path / "manifest.json").write_text(json.dumps(content, indent=2))
    assert run.status == "damaged"


def test_clean_leaves_what_runs_or_went_on(run, capsys):
    record = RunRecord(run.path)
    with folder_lock(run.path, record.root):
        assert main(["runs", "clean", "run=*", "--yes"]) == 0
        assert "a process is working on it" in capsys.readouterr().out.replace("\n", " ")
    with folder_lock(run.path, record.root, "0-of-2"):  # a shard
        assert main(["runs", "clean", "run=*", "--yes"]) == 0
        assert run.path.is_dir()
        (run.path / "manifest.json").unlink()
        assert RunRecord(run.path).status == "running"
    assert RunRecord(run.path).status == "unfinished"
    waiting = RunRecord(run.path)
    assert waiting.status == "unfinished"
    assert main(list(COMMAND)) == 0  # it finishes while the question is on the screen
    from mechxai.cli.runs import _remove

    assert _remove(waiting) == "it is no longer unfinished"
    assert run.is_finished
    assert main(["runs", "clean", "run=*", "--yes"]) == 0
    assert not run.path.exists()
