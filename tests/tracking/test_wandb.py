"""The offline record of W&B: who ran what, config, history, figures, tables and artifacts."""

import base64
import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import plotly.graph_objects as go
import pytest

from mechxai.core.errors import ConfigError
from mechxai.tracking.tracker import SafeTracker
from mechxai.tracking.wandb import WandbTracker
from tests.tracking.offline_record import forget_session, offline_folders, own_process, read_offline

SECRETS = ["S3CRET-key", "S3CRET-token", "S3CRET-deep", "S3CRET-password", "S3CRET-override", "S3CRET-argv"]
SECRETS += ["S3CRET-cell", "S3CRET-model", "S3CRET-prompt"]
CONFIG = {
    "seed": 3,
    "model": {"name": "zoo/ioi", "api_key": "S3CRET-key", "hf_token": "S3CRET-token"},
    "method": {"over": ("layer", "pos"), "bos_token": "<s>", "parts": [{"secret": "S3CRET-deep"}]},
    "password": "S3CRET-password",
    "overrides": ["model.hf_token=S3CRET-override"],
    "folder": Path("outputs/ioi"),
}


class View:
    """A figure that is not plotly's, but can write itself as a page."""

    def to_html(self):
        return "<p>attention view</p>"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Two runs in one process, through the same tracker: one that ends well, one that fails."""
    root = tmp_path_factory.mktemp("offline")
    result = root / "result.nc"
    result.write_bytes(b"numbers" * 1000)
    tracker = WandbTracker(directory=str(root), tags=["ioi", "test"], project="studies", entity="lab")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mechxai", "run", "model.hf_token=S3CRET-argv"])
        tracker.start("first", CONFIG, group="sweep", job_type="patching", run_id="aaa111")
        said = tracker.where()
        for step in range(3):
            tracker.metrics({"cells": step, "seconds": step / 2})
        tracker.summary({"recovered": 0.75, "best": {"layer": 9, "head": 6}, "top_token": " Mary"})
        tracker.figure("resid_pre", go.Figure(go.Heatmap(z=[[1.0, 2.0], [3.0, 4.0]])))
        tracker.figure("view", View())
        tracker.table("heads", ["layer", "head", "value"], [[0, "a", 1.5], [1, "token=S3CRET-cell", float("nan")]])
        tracker.used("zoo/ioi", "model", {"weight_hash": "w1", "api_key": "S3CRET-model", "sizes": [3, 4]})
        tracker.used("task-ioi", "task", {"n": 2, "prompts": [{"clean": "password: S3CRET-prompt", "wrong": ["Mary"]}]})
        tracker.artifact(result, "result of first/1", "result")
        tracker.close()
    tracker.start("second", {"seed": 4}, run_id="bbb222")
    tracker.metrics({"cells": 7})
    tracker.close(failed=True)
    forget_session()
    folders = {folder.name.rsplit("-", 1)[1]: folder for folder in offline_folders(root)}
    return SimpleNamespace(root=root, result=result, said=said, folders=folders, tracker=tracker)


@pytest.fixture(scope="module")
def first(recorded):
    return read_offline(recorded.folders["aaa111"])


@pytest.fixture(scope="module")
def second(recorded):
    return read_offline(recorded.folders["bbb222"])


def test_without_a_key_it_works_offline_and_says_where(recorded):
    folder = recorded.folders["aaa111"]
    assert str(folder) in recorded.said
    assert "no W&B API key" in recorded.said
    assert f"wandb sync {folder}" in recorded.said


def test_two_runs_in_one_process_are_two_records(recorded, first, second):
    assert set(recorded.folders) == {"aaa111", "bbb222"}
    assert (first.run.display_name, second.run.display_name) == ("first", "second")
    assert second.config["seed"] == 4
    assert "model" not in second.config
    assert second.series("cells") == [7]


def test_who_and_what_of_the_run(first):
    run = first.run
    assert (run.run_id, run.project, run.entity) == ("aaa111", "studies", "lab")
    assert (run.run_group, run.job_type, list(run.tags)) == ("sweep", "patching", ["ioi", "test"])


def test_config_is_plain_and_without_secrets(first):
    config = {key: value for key, value in first.config.items() if key != "_wandb"}
    assert config == {
        "seed": 3,
        "model": {"name": "zoo/ioi"},
        "method": {"over": ["layer", "pos"], "bos_token": "<s>", "parts": [{}]},
        "overrides": ["model.hf_token=<removed>"],
        "folder": "outputs/ioi",
    }


def test_history_and_summary(first):
    assert first.series("cells") == [0, 1, 2]
    assert first.series("seconds") == [0, 0.5, 1]
    assert first.summary["recovered"] == 0.75
    assert first.summary["top_token"] == " Mary"
    best = first.summary.get("best") or {name: first.summary[f"best/{name}"] for name in ("layer", "head")}
    assert best == {"layer": 9, "head": 6}


def test_plotly_figure_stays_interactive(recorded, first):
    assert first.series("resid_pre/_type") == ["plotly-file"]
    (path,) = first.series("resid_pre/path")
    written = (recorded.folders["aaa111"] / "files" / path).read_bytes()
    assert first.series("resid_pre/sha256") == [hashlib.sha256(written).hexdigest()]
    assert json.loads(written)["data"][0]["type"] == "heatmap"


def test_other_figures_become_pages(recorded, first):
    assert first.series("view/_type") == ["html-file"]
    (path,) = first.series("view/path")
    assert "attention view" in (recorded.folders["aaa111"] / "files" / path).read_text()


def test_artifact_with_digest_and_metadata(recorded, first):
    raw = recorded.result.read_bytes()
    artifact = first.artifacts["result-of-first-1"]
    assert artifact.type == "result"
    (entry,) = artifact.manifest.contents
    assert (entry.path, entry.size) == ("result.nc", len(raw))
    assert entry.digest == base64.b64encode(hashlib.md5(raw).digest()).decode()
    about = json.loads(artifact.metadata)
    assert about["sha256"] == hashlib.sha256(raw).hexdigest()
    assert (about["run"], about["run_id"], about["bytes"]) == ("first", "aaa111", len(raw))
    assert about["config"]["model"] == {"name": "zoo/ioi"}


def test_table_has_columns_rows_and_a_gap_where_there_is_no_number(recorded, first):
    assert first.series("heads/_type") == ["table-file"]
    (path,) = first.series("heads/path")
    table = json.loads((recorded.folders["aaa111"] / "files" / path).read_text())
    assert table["columns"] == ["layer", "head", "value"]
    assert table["data"] == [[0, "a", 1.5], [1, "token=<removed>", None]]


def test_inputs_are_used_by_the_run_and_named_by_what_it_made(first):
    model, task = first.artifacts["zoo-ioi"], first.artifacts["task-ioi"]
    assert (model.type, task.type) == ("model", "task")
    # what wandb sync turns into "used by this run": the model and the task are inputs, the result is none
    result = first.artifacts["result-of-first-1"]
    assert [one.use_after_commit for one in (model, task, result)] == [True, True, False]
    assert json.loads(model.metadata) == {"weight_hash": "w1"}
    assert json.loads(result.metadata)["inputs"] == [
        {"name": "zoo-ioi", "type": "model", "digest": model.digest},
        {"name": "task-ioi", "type": "task", "digest": task.digest},
    ]


def test_an_input_is_one_small_file_that_lies_with_the_record(recorded, first):
    (entry,) = first.artifacts["task-ioi"].manifest.contents
    assert entry.path == "task.json"
    kept = Path(entry.local_path)
    assert kept.is_relative_to(recorded.folders["aaa111"].resolve())
    assert json.loads(kept.read_text()) == {"n": 2, "prompts": [{"clean": "password: <removed>", "wrong": ["Mary"]}]}


def test_nothing_is_kept_in_the_home_directory(recorded, first, bare_home):
    assert not list(bare_home.rglob("artifacts/staging/*"))
    kept = [Path(entry.local_path) for one in first.artifacts.values() for entry in one.manifest.contents]
    assert len(kept) == 4  # two inputs, the table, the result
    assert all(path.is_relative_to(recorded.folders["aaa111"].resolve()) and path.is_file() for path in kept)


def test_the_next_run_has_inputs_of_its_own(tmp_path):
    tracker = WandbTracker(directory=tmp_path, mode="offline")
    for number in range(2):
        tracker.start("run", {}, run_id=f"run{number}")
        tracker.used(f"task-{number}", "task", {"n": number})
        tracker.artifact(Path(__file__), "result", "result")
        tracker.close()
    forget_session()
    last = read_offline(next(folder for folder in offline_folders(tmp_path) if folder.name.endswith("run1")))
    assert [one["name"] for one in json.loads(last.artifacts["result"].metadata)["inputs"]] == ["task-1"]


def test_exit_codes(first, second):
    assert (first.exit_code, second.exit_code) == (0, 1)


def test_no_secret_in_any_byte_of_the_record(recorded):
    files = [path for path in recorded.folders["aaa111"].rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    for path in files:
        raw = path.read_bytes()
        assert not [secret for secret in SECRETS if secret.encode() in raw], path


@pytest.mark.parametrize(("argument", "kept"), [("model.name=zoo/ioi", True), ("model.hf_token=S3CRET", False)])
def test_machine_metadata_holds_the_command_line_so_a_secret_there_keeps_it_out(argument, kept, monkeypatch):
    import wandb

    monkeypatch.setattr(sys, "argv", ["mechxai", "run", argument])
    assert WandbTracker()._settings(wandb).x_disable_meta is not kept


def test_closed_tracker_is_idle(recorded):
    recorded.tracker.metrics({"cells": 1})
    recorded.tracker.close()
    assert len(offline_folders(recorded.root)) == 2


def test_other_runs_of_the_process_are_left_alone_and_nothing_is_printed(tmp_path, capfd):
    import wandb

    quiet = wandb.Settings(silent=True, console="off")
    theirs = wandb.init(mode="offline", dir=str(tmp_path / "theirs"), settings=quiet)
    capfd.readouterr()
    tracker = WandbTracker(directory=tmp_path / "ours", mode="offline")
    tracker.start("ours", {})
    with pytest.raises(ConfigError, match="still open"):
        tracker.start("again", {})
    tracker.metrics({"a": 1.0})
    tracker.close()
    assert wandb.run is theirs
    theirs.log({"still": 1})
    theirs.finish()
    assert capfd.readouterr() == ("", "")
    forget_session()
    (folder,) = offline_folders(tmp_path / "ours")
    assert read_offline(folder).series("a") == [1]


def test_missing_artifact_and_odd_figure_are_noted_and_the_run_goes_on(tmp_path):
    tracker = SafeTracker(WandbTracker(directory=tmp_path, mode="offline"))
    tracker.start("partial", {})
    tracker.artifact(tmp_path / "nowhere.nc", "result", "result")
    tracker.figure("resid_pre", 42)
    tracker.metrics({"a": 1.0})
    tracker.close()
    assert [problem.split(" (")[0] for problem in tracker.problems] == ["artifact result", "figure resid_pre"]
    forget_session()
    (folder,) = offline_folders(tmp_path)
    record = read_offline(folder)
    assert (record.series("a"), record.exit_code) == ([1], 0)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are found in /proc")
def test_when_its_process_is_killed_the_next_runs_of_this_process_are_recorded(tmp_path):
    tracker = SafeTracker(WandbTracker(directory=tmp_path, mode="offline"))
    tracker.start("cut short", {}, run_id="run0")
    os.kill(own_process(), signal.SIGKILL)
    tracker.metrics({"a": 1.0})
    tracker.close()
    lost = [problem.split(" (")[0] for problem in tracker.problems]  # what the socket still took is missed at the end
    assert lost in (["metrics", "end of the run"], ["end of the run"])
    tracker.start("whole", {}, run_id="run1")
    tracker.close()
    os.kill(own_process(), signal.SIGKILL)  # between two runs, where nobody notices
    tracker.start("last", {}, run_id="run2")
    tracker.metrics({"a": 2.0})
    tracker.close()
    assert tracker.problems == []
    forget_session()
    (path,) = tmp_path.rglob("run-run2.wandb")  # its folder has another name where W&B had begun one already
    last = read_offline(path.parent)
    assert (last.series("a"), last.exit_code) == ([2], 0)


def test_directory_that_is_a_file_is_a_problem_not_an_error(tmp_path):
    (tmp_path / "taken").write_text("a file")
    tracker = SafeTracker(WandbTracker(directory=tmp_path / "taken"))
    tracker.start("run", {})
    tracker.metrics({"a": 1.0})
    tracker.close()
    assert tracker.where() is None
    assert len(tracker.problems) == 1
    assert "ArtifactError: W&B files cannot be written to" in tracker.problems[0]
