"""A run tracked by W&B without a key or a network: everything is in the offline record."""

import json
from pathlib import Path

import pytest

import mechxai as mx
from mechxai.cli import main
from tests.tracking.offline_record import forget_session, offline_folders, read_offline

TINY = ["run", "debug=tiny", "tracker=wandb", "model=zoo/handmade-ioi", "task.template=0", "task.order=abba"]


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
    assert main([*TINY, "method.site=z", "method.over=[layer,head]"]) == 0
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


def test_lineage_and_the_cells_as_a_table(bare_home):
    assert main([*TINY, "method.site=z", "method.over=[layer,head]"]) == 0
    forget_session()
    (folder,) = offline_folders(bare_home / "outputs/debug")
    record = read_offline(folder)
    (path,) = bare_home.rglob("result.nc")
    result = mx.Result.load(path)
    by_kind = {one.type: one for one in record.artifacts.values()}
    model = json.loads(by_kind["model"].metadata)
    for name in ("name", "weight_hash", "revision", "architecture", "dtype", "processing"):
        assert model[name] == result.info.model[name]
    (prompts,) = by_kind["task"].manifest.contents
    task = json.loads(Path(prompts.local_path).read_text())
    assert by_kind["task"].name == f"task-ioi-{task['fingerprint'][:10]}"
    assert (task["n"], task["left_out"], task["task"]["name"]) == (4, 0, "ioi")
    first = task["prompts"][0]
    assert first["clean"] != first["corrupted"]
    assert first["answers"][0] in first["clean"]
    inputs = [(one["type"], one["digest"]) for one in json.loads(by_kind["result"].metadata)["inputs"]]
    assert inputs == [("model", by_kind["model"].digest), ("task", by_kind["task"].digest)]
    assert record.run.run_id == path.parent.name[-10:]
    (place,) = record.series("z/table/path")
    table = json.loads((folder / "files" / place).read_text())
    assert table["columns"] == ["layer", "head", "value", "low", "high"]
    recovered = result.data["recovered"].values
    assert [row[2] for row in table["data"]] == pytest.approx(recovered.ravel().tolist())
    assert record.summary["strongest"] == pytest.approx(abs(recovered).max())
    assert record.summary["strongest_of"] == "recovered"


def test_what_is_found_finished_is_recorded_only_where_an_agent_waits(bare_home, monkeypatch, capsys):
    asked = [*TINY, "method.site=resid_pre", "method.over=[layer]"]
    assert main([*asked, "tracker=none"]) == 0
    assert main(asked) == 0
    assert "nothing computed" in capsys.readouterr().out
    assert not offline_folders(bare_home / "outputs/debug")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_RUN_ID", "agentrun")
    forget_session()
    assert main(asked) == 0
    forget_session()
    (folder,) = offline_folders(bare_home / "outputs/debug")
    record = read_offline(folder)
    assert (record.run.run_id, record.run.sweep_id, record.exit_code) == ("agentrun", "sweep1", 0)
    assert "strongest" in record.summary


def test_the_jobs_of_a_sweep_share_a_group(bare_home):
    arguments = ["run", "-m", "debug=tiny", "tracker=wandb", "model=zoo/handmade-ioi", "task.template=0", "name=many"]
    assert main([*arguments, "task.order=abba", "method.over=[layer]", "method.site=resid_pre,attn_out"]) == 0
    forget_session()
    found = [read_offline(folder) for folder in offline_folders(bare_home / "outputs/debug")]
    (sweep,) = (bare_home / "outputs/debug/sweeps/many").iterdir()
    assert [one.run.run_group for one in found] == [f"many-{sweep.name}"] * 2
    assert {one.run.job_type for one in found} == {"zoo/handmade-ioi"}
