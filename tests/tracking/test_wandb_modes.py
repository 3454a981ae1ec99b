"""Modes of W&B: environment against field, missing keys, and servers that never answer."""

import os
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import plotly.graph_objects as go
import pytest

from mechxai.core.errors import ConfigError
from mechxai.tracking.tracker import SafeTracker
from mechxai.tracking.wandb import WandbTracker
from mechxai.tracking.wandb_session import choose_mode, has_key


def test_disabled_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    tracker = SafeTracker(WandbTracker(directory=tmp_path / "none"))
    tracker.start("run", {"seed": 3})
    tracker.metrics({"a": 1.0})
    tracker.figure("f", go.Figure())
    tracker.artifact(tmp_path, "a", "result")
    tracker.close(failed=True)
    assert tracker.problems == []
    assert tracker.where() is None
    assert not (tmp_path / "none").exists()


def test_the_field_wins_over_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    tracker = WandbTracker(directory=tmp_path, mode="disabled")
    tracker.start("run", {})
    assert tracker.where() is None


def test_unknown_mode_is_answered_with_the_modes(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(ConfigError, match="Did you mean 'offline'"):
        WandbTracker().start("run", {})


def test_online_without_a_key_is_refused_without_asking(tmp_path):
    with pytest.raises(ConfigError, match="wandb login"):
        WandbTracker(mode="online", directory=tmp_path).start("run", {})


def _module(**settings):
    defaults = {"api_key": None, "base_url": "https://api.wandb.ai", "mode": "online"}
    return SimpleNamespace(setup=lambda: SimpleNamespace(settings=SimpleNamespace(**defaults | settings)))


def test_keys_are_found_where_wandb_looks(bare_home, monkeypatch):
    assert not has_key(_module())
    assert has_key(_module(api_key="k"))
    monkeypatch.setenv("WANDB_API_KEY", "k")
    assert has_key(_module())
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("NETRC", str(bare_home / "mynetrc"))
    (bare_home / "mynetrc").write_text("machine wandb.lab.org login user password k\n")
    (bare_home / "mynetrc").chmod(0o600)
    assert not has_key(_module())
    assert has_key(_module(base_url="https://wandb.lab.org"))
    (bare_home / "mynetrc").write_text("nonsense (")
    assert not has_key(_module())


def test_mode_when_none_is_asked():
    assert choose_mode(_module(), None) == ("offline", ", as no W&B API key was found")
    assert choose_mode(_module(api_key="k"), None) == ("online", "")
    assert choose_mode(_module(api_key="k", mode="offline"), None) == ("offline", "")


def test_a_server_that_never_answers_does_not_hold_the_run(tmp_path):
    """A socket of this machine that takes connections and stays silent; in a process of its own, as settings stick."""
    script = """
        from mechxai.tracking.tracker import SafeTracker
        from mechxai.tracking.wandb import WandbTracker
        tracker = SafeTracker(WandbTracker(directory="files", init_timeout=2, finish_timeout=2))
        tracker.start("run", {}, run_id="abc")
        tracker.metrics({"a": 1.0})
        tracker.close()
        print(tracker.note())
    """
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        env = os.environ | {"WANDB_BASE_URL": url, "WANDB_API_KEY": "a" * 40, "PYTHONPATH": str(Path.cwd())}
        began = time.monotonic()
        command = [sys.executable, "-c", textwrap.dedent(script)]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=50, check=True)
    assert time.monotonic() - began < 30
    assert done.stdout.startswith("W&B: missing the whole run (CommError")
    assert done.stderr.count("\n") == 1  # our own warning, nothing of wandb's
