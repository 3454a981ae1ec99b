"""The W&B sweep file drives the command line: an agent of W&B's own turns it into runs, which report to its sweep."""

import itertools
import os
import stat
import sys
from pathlib import Path

import pytest
import yaml

from mechxai.sweeps.overrides import check_overrides
from tests.tracking.offline_record import forget_session, offline_folders, read_offline

SWEEP = Path("experiments/wandb_sweep.yaml").resolve()
TINY = ["debug=tiny", "tracker=wandb", "method.over=[layer]"]


@pytest.fixture
def agent(tmp_path, monkeypatch):
    # an agent of W&B, as `wandb agent lab/mechxai/sweep1` makes it, with nobody to ask; `mechxai` is this checkout
    from wandb.wandb_agent import Agent

    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    command = tmp_path / "bin" / "mechxai"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mechxai.cli "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(SWEEP.parents[1]))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_MODE", "offline")
    # what `wandb agent` exports
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_ENTITY", "lab")
    monkeypatch.setenv("WANDB_RUN_ID", "")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", "")
    monkeypatch.chdir(tmp_path)
    made = Agent(None, None, sweep_id="sweep1")
    made._sweep_command = yaml.safe_load(SWEEP.read_text())["command"]
    yield made
    forget_session()


def asked(run_id, **parameters):
    """What W&B's server sends an agent."""
    named = {name.replace("__", "."): {"value": value} for name, value in parameters.items()}
    return {"type": "run", "run_id": run_id, "program": "mechxai", "args": named}


def test_every_job_of_the_file_is_one_that_the_command_line_takes():
    """W&B's own code makes the arguments."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    sweep = yaml.safe_load(SWEEP.read_text())
    values = {name: one["values"] for name, one in sweep["parameters"].items()}
    assert set(values) >= {"method.site", "task.seed"}
    given = [one for one in sweep["command"] if not one.startswith("${") and one != "run"]
    for job in itertools.zip_longest(*values.values()):
        command = {
            "args": {name: {"value": value} for name, value in zip(values, job, strict=True) if value is not None}
        }
        overrides = [*given, *create_sweep_command_args(command)["args_no_hyphens"]]
        assert check_overrides(overrides) is None  # one job, none of whose keys is unknown


def test_an_agent_runs_a_job_which_reports_under_its_ids(agent, tmp_path):
    agent._sweep_command = [*agent._sweep_command[:-1], *TINY, agent._sweep_command[-1]]
    answer = agent._process_command(asked("run1", model="zoo/handmade-ioi", method__site="attn_out", task__seed=1))
    assert "exception" not in answer
    assert agent._run_processes["run1"].wait(timeout=200) == 0
    (folder,) = offline_folders(tmp_path / "outputs/debug")
    record = read_offline(folder)
    assert (record.run.run_id, record.run.sweep_id) == ("run1", "sweep1")
    assert (record.run.project, record.run.entity) == ("theirs", "lab")
    assert record.config["method"]["site"] == "attn_out"
    assert record.config["task"]["seed"] == 1
    assert record.exit_code == 0
    metric = yaml.safe_load(SWEEP.read_text())["metric"]["name"]
    assert record.summary[metric] == pytest.approx(1, abs=0.01)  # the planted layer
    (manifest,) = tmp_path.rglob("manifest.json")
    assert (manifest.parent / "result.nc").is_file()
