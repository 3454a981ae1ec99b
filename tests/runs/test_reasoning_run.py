"""Runs of chains of thought: against a faulty endpoint, killed and gone on, the key nowhere; and by experiment."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

import mechxai as mx
from mechxai.cli import main
from mechxai.core.result import Result
from mechxai.model.generation import connection as connections
from tests.serving import serving

SECRET = "sk-very-secret"


@pytest.fixture(scope="module")
def cot():
    return mx.load("zoo/cot", device="cpu")


def arguments(server, *more):
    return [
        "run",
        "name=asked",
        "tracker=none",
        "figure=html",
        "model=generator",
        "model.name=zoo/cot",
        f"model.connection.base_url={server.url}",
        "task=cot_arithmetic",
        "task.n=3",
        "task.steps=3",
        "task.split=held_out",
        "method=early_answering",
        *more,
    ]


def test_a_killed_run_against_a_faulty_server_goes_on_and_pays_for_nothing_twice(cot, tmp_path):
    with serving(cot, key=SECRET) as server:
        command = [sys.executable, "-m", "mechxai.cli", *arguments(server, "model.connection.at_once=1")]
        environment = os.environ | {"OPENAI_API_KEY": SECRET}
        server.faults = ["", "500", "", "429", "", "cut", "", "garbage"] + ["", "slow"] * 100
        going = subprocess.Popen(
            command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        deadline = time.time() + 240
        while len(list(tmp_path.rglob("answers/*/*.json"))) < 7 and time.time() < deadline:
            time.sleep(0.05)
        going.send_signal(signal.SIGKILL)
        going.wait()
        paid = Counter(
            json.dumps(json.loads(path.read_text())["request"], sort_keys=True)
            for path in tmp_path.rglob("answers/*/*.json")
        )
        assert len(paid) >= 7
        server.faults, server.seen = [], []
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        asked = Counter(json.dumps(body, sort_keys=True) for body in server.seen)
        assert not set(asked) & set(paid), "what was paid is not asked again"
        assert max(asked.values()) == 1
        (path,) = tmp_path.rglob("result.nc")
        result = Result.load(path)
        assert SECRET not in done.stdout + done.stderr
        subprocess.run(command, env=environment, cwd=tmp_path, check=True, timeout=240, stdout=subprocess.DEVNULL)
        assert sum(asked.values()) == len(server.seen), "the run was found"
    for one in tmp_path.rglob("*"):
        assert one.is_dir() or SECRET.encode() not in one.read_bytes(), one
    batch = mx.tasks.cot_arithmetic(cot, n=3, steps=3, split="held_out")
    own = mx.EarlyAnswering(read="text")(cot, batch).data
    assert result.data["per_example"].equals(own["per_example"]), "as the model says when it is asked itself"
    assert list(result.data["chain"].values) == list(own["chain"].values)


@pytest.mark.parametrize("method", ["planted_error", "self_consistency"])
def test_other_methods_ask_a_chat(cot, method, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(connections, "_PAUSE", 0.01)
    with serving(cot) as server:
        few = ["method.samples=3"] if method == "self_consistency" else ["method.step=last"]
        assert main(arguments(server, f"method={method}", "model.api=chat", *few)) == 0
        assert any("messages" in body for body in server.seen)
    (path,) = tmp_path.rglob("result.nc")
    data = Result.load(path).data
    assert float(data["accuracy"]) == 1
    assert list(tmp_path.rglob("report.html"))


def test_an_endpoint_is_not_opened_and_attribution_not_asked_of_it(cot, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with serving(cot) as server:
        assert main(arguments(server, "method=chain_flow")) == 2
        assert main(arguments(server, "method=early_answering", "task=ioi", "~task.steps")) != 0
        assert not server.seen
    assert "only writes" in " ".join(capsys.readouterr().err.split())


def test_an_endpoint_is_asked_what_it_can_be_asked(cot, tmp_path, monkeypatch, capsys):
    """The command that the configuration gives: methods that open the model are left out, and it is said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(connections, "_PAUSE", 0.01)
    with serving(cot) as server:
        own = ["model=generator", "model.name=zoo/cot", f"model.connection.base_url={server.url}", "also.bias=null"]
        assert main(["run", "experiment=cot_faithfulness", "debug=tiny", "task.n=2", "task.steps=3", *own]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "flow: left out." in shown
    assert "attribution: left out." in shown
    assert len(list(tmp_path.rglob("result.nc"))) == 4


def test_one_command_explains_chains_in_one_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "experiment=cot_faithfulness", "debug=tiny"]) == 0
    (page,) = tmp_path.rglob("report.html")
    text = page.read_text(encoding="utf-8")
    for said in ("Early answering", "planted", "Chain flow", "Integrated gradients"):
        assert said.lower() in text.lower() or said == "planted"
    shown = capsys.readouterr().out
    assert "accuracy with the chain" in shown
    assert "share through step" in shown
    assert main(["run", "experiment=cot_faithfulness", "debug=tiny"]) == 0
    shown = capsys.readouterr().out
    assert "already finished" in shown
    assert "report.html" in shown
