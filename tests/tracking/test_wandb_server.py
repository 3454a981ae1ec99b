"""Uploads to a W&B server (a local stand-in), by `wandb sync` and by online runs."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mechxai.tracking.wandb import WandbTracker
from tests.tracking.offline_record import forget_session, offline_folders
from tests.tracking.stand_in import stand_in

CHAIN = [("run1", "task-ioi"), ("run1", "zoo-ioi")]


@pytest.fixture
def server():
    with stand_in() as known:
        yield known


def asking(server):
    return os.environ | {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "a" * 40, "PYTHONPATH": str(Path.cwd())}


def test_offline_then_sync_uploads_everything_with_its_lineage(tmp_path, server):
    result = tmp_path / "result.nc"
    result.write_bytes(b"numbers" * 1000)
    tracker = WandbTracker(directory=tmp_path, mode="offline", project="studies")
    tracker.start("first", {"seed": 3}, group="sweep", job_type="zoo/ioi", run_id="run1")
    tracker.used("zoo/ioi", "model", {"weight_hash": "w1"})
    tracker.used("task-ioi", "task", {"prompts": [{"clean": "When Mary"}]})
    tracker.metrics({"cells": 3})
    tracker.table("heads", ["head", "value"], [[0, 1.5]])
    tracker.artifact(result, "result-1", "result")
    tracker.close()
    forget_session()
    (folder,) = offline_folders(tmp_path)
    command = [sys.executable, "-m", "wandb", "sync", str(folder)]
    done = subprocess.run(command, env=asking(server), capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    run = server.runs["run1"]
    assert (run["project"], run["groupName"], run["jobType"]) == ("studies", "sweep", "zoo/ioi")
    assert json.loads(run["config"])["seed"] == {"value": 3}
    assert [json.loads(line)["cells"] for line in server.history("run1") if "cells" in json.loads(line)] == [3]
    # model and task are used by the run and made by none; the result is made by the run
    assert sorted(server.used) == CHAIN
    makers = {name: run for run, name in server.made}
    assert (makers["zoo-ioi"], makers["task-ioi"], makers["result-1"]) == (None, None, "run1")
    assert {one["state"] for one in server.artifacts.values()} == {"COMMITTED"}
    (made,) = (one for one in server.artifacts.values() if one["artifactCollectionName"] == "result-1")
    assert [one["name"] for one in json.loads(made["metadata"])["inputs"]] == ["zoo-ioi", "task-ioi"]
    uploads = {path.rpartition("/")[2]: raw for path, raw in server.uploads.items()}
    assert uploads["result.nc"] == result.read_bytes()
    assert json.loads(uploads["task.json"]) == {"prompts": [{"clean": "When Mary"}]}
    assert json.loads(uploads["heads.table.json"])["data"] == [[0, 1.5]]


ONLINE = """
    import os, signal, sys
    from pathlib import Path
    from mechxai.tracking.tracker import SafeTracker
    from mechxai.tracking.wandb import WandbTracker
    tracker = SafeTracker(WandbTracker(directory="files", mode="online"))
    tracker.start("run", {}, run_id="run1")
    for step in range(3):
        tracker.metrics({"a": step})
    if sys.argv[1] == "killed":
        print("ready", flush=True)
        sys.stdin.readline()
    tracker.used("zoo/ioi", "model", {"weight_hash": "w1"})
    tracker.used("task-ioi", "task", {"n": 2})
    tracker.artifact(Path(sys.argv[0]), "result-1", "result")
    tracker.close()
    print(tracker.note())
"""


def test_a_killed_run_goes_on_under_its_id_and_online_runs_have_their_lineage(tmp_path, server):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(ONLINE))
    around = {"cwd": tmp_path, "env": asking(server), "text": True, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, script, "killed"], **around) as process:
        assert process.stdout.readline() == "ready\n"
        server.wait(lambda: len(server.history("run1")) == 3)
        process.kill()
    again = subprocess.run([sys.executable, script, "whole"], **around, timeout=100, check=True)
    assert again.stdout == "None\n"
    assert list(server.runs) == ["run1"]
    steps = [(json.loads(line)["_step"], json.loads(line)["a"]) for line in server.history("run1")]
    assert steps == [(0, 0), (1, 1), (2, 2), (3, 0), (4, 1), (5, 2)]
    assert sorted(server.used) == CHAIN
    assert ("run1", "result-1") in server.made
