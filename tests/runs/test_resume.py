"""A run killed in the middle goes on where it stopped and ends with the same bits."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import mechxai as mx

# 3 layers x 4 heads x 15 positions on 16 prompts, two cells to a wave: some 700 waves
COMMAND = [
    *("model=zoo/handmade-ioi", "task=ioi", "task.template=0", "task.order=abba", "task.n=16", "method.site=z"),
    *("method.over=[layer,head,pos]", "tokens_per_wave=256", "tracker=none", "figure=html", "name=killed"),
]


def start(folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "mechxai.cli", "run", *COMMAND]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def result_folder(folder: Path) -> Path:
    (found,) = (folder / "outputs" / "killed").glob("*/*")
    return found


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    process = start(folder)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return result_folder(folder)


def test_killed_run_resumes_bit_for_bit_and_computes_no_finished_cell_twice(uninterrupted, tmp_path):
    process = start(tmp_path)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        waves = list(tmp_path.rglob("cells/*.safetensors"))
        if len(waves) >= 5:
            break
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run was over before it could be killed"
    kept = len(list(tmp_path.rglob("cells/*.safetensors")))
    assert kept >= 5
    assert not list(tmp_path.rglob("manifest.json"))
    again = start(tmp_path)
    output, _ = again.communicate(timeout=300)
    assert again.returncode == 0, output
    folder = result_folder(tmp_path)
    assert folder.name == uninterrupted.name, "the same question has the same folder"
    whole, resumed = mx.Result.load(uninterrupted / "result.nc"), mx.Result.load(folder / "result.nc")
    for name in whole.data.data_vars:
        np.testing.assert_array_equal(whole.data[name].values, resumed.data[name].values, err_msg=str(name))
    cost = json.loads((folder / "manifest.json").read_text())["cost"]
    assert cost["cells"] == 12 * 15 * 16
    waves = cost["waves"]
    assert cost["cells_reused"] > 0
    assert cost["cells_reused"] <= cost["cells"] * (kept + 1) / waves
    assert "reused" in output
    assert not (folder / "cells").exists(), "nothing is left behind"
    once_more = start(tmp_path)
    output, _ = once_more.communicate(timeout=300)
    assert once_more.returncode == 0
    assert "already finished" in output
