"""A run tracked by W&B without a key or a network: everything is in the offline record."""

import json

import pytest

from mechxai.cli import main
from tests.tracking.offline_record import forget_session, offline_folders, read_offline


@pytest.fixture
def bare_home(tmp_path, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_offline_run_per_job_with_figures_and_artifact(bare_home, capsys):
    arguments = ["run", "debug=tiny", "tracker=wandb", "model=zoo/handmade-ioi", "task.template=0", "task.order=abba"]
    assert main([*arguments, "method.site=z", "method.over=[layer,head]"]) == 0
    shown = capsys.readouterr().out
    assert "offline" in shown
    forget_session()
    (record,) = bare_home.rglob("run-*.wandb")
    content = record.read_bytes()
    for needed in (b"activation_patching", b"zoo/handmade-ioi", b"z/max_recovered", b"z/forward_passes", b"result.nc"):
        assert needed in content, needed
    assert list(record.parent.rglob("media/plotly/*.json"))
    (manifest,) = bare_home.rglob("outputs/**/manifest.json")
    assert json.loads(manifest.read_text())["status"] == "finished"


def test_the_jobs_of_a_sweep_share_a_group(bare_home):
    arguments = ["run", "-m", "debug=tiny", "tracker=wandb", "model=zoo/handmade-ioi", "task.template=0", "name=many"]
    assert main([*arguments, "task.order=abba", "method.over=[layer]", "method.site=resid_pre,attn_out"]) == 0
    forget_session()
    found = [read_offline(folder) for folder in offline_folders(bare_home / "outputs/debug")]
    (sweep,) = (bare_home / "outputs/debug/sweeps/many").iterdir()
    assert [one.run.run_group for one in found] == [f"many-{sweep.name}"] * 2
    assert {one.run.job_type for one in found} == {"zoo/handmade-ioi"}
