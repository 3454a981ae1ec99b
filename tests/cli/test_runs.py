"""``mechxai runs``: found, filtered, shown, compared, merged from shards, cleaned away."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from mechxai.cli import main
from mechxai.core.errors import ArtifactError, ConfigError
from mechxai.core.result import Result
from mechxai.runs.compare import difference, settings_that_differ, values_that_differ
from mechxai.runs.locks import folder_lock
from mechxai.runs.query import find_run, list_runs, read_filters

OWN = ("debug=tiny", "model=zoo/handmade-ioi", "task.template=0", "task.order=abba", "name=own", "output=outputs")
LONG = (*OWN, "method.site=z", "method.over=[layer,head,pos]", "task.n=8", "tokens_per_wave=256")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two finished runs that differ in their direction, and one that was given up."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for direction in ("denoise", "noise"):
            assert (
                main(["run", *OWN, "method.site=z", "method.over=[layer,head]", f"method.direction={direction}"]) == 0
            )
        assert main(["run", *LONG, "shard=0/2"]) == 0
    return root


@pytest.fixture
def here(made, monkeypatch):
    monkeypatch.chdir(made)
    return made


def test_runs_are_listed_and_filtered(here, capsys):
    assert main(["runs"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("zoo/h") + shown.count("zoo-h") == 3
    assert "unfinished" in shown.split()
    assert main(["runs", "model=zoo/*", "status=finished"]) == 0
    assert capsys.readouterr().out.count("zoo/h") == 2
    assert main(["runs", "model=gpt2"]) == 0
    assert "no runs below outputs that match" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="experiment"):
        list_runs(Path("outputs"), {"experimnt": "x"})
    with pytest.raises(ConfigError, match="Write name=pattern"):
        read_filters(["zoo"])
    assert main(["runs", "modle=x"]) == 2
    assert main(["runs", "status=done"]) == 2
    assert main(["runs", "lsit"]) == 2
    assert "Did you mean 'list'" in capsys.readouterr().err
    filters = ["n=8", "seed=0", "model=zoo/handmade-ioi", "task=ioi", "site=z", "status=unfinished"]
    assert len(list_runs(Path("outputs"), read_filters(filters))) == 1


def test_a_run_that_is_not_finished_says_how_it_goes_on(here, capsys):
    (waiting,) = list_runs(Path("outputs"), {"status": "unfinished"})
    assert main(["runs", "show", waiting.facts["run"][:6]]) == 0
    shown = capsys.readouterr().out
    assert "waves kept" in shown
    goes_on = next(line for line in shown.splitlines() if line.startswith("continue it with: "))
    assert "'method.over=[layer,head,pos]'" in goes_on
    assert "shard" not in goes_on
    assert main(["runs", "compare", *[waiting.facts["run"]] * 2]) == 2
    assert "is not finished" in capsys.readouterr().err.replace("\n", " ")


def test_a_run_is_shown_by_the_beginning_of_its_id(here, capsys):
    first = list_runs(Path("outputs"), {"status": "finished"})[0]
    assert main(["runs", "show", first.facts["run"][:6]]) == 0
    shown = capsys.readouterr().out
    assert "activation_patching of z on zoo/handmade-ioi" in shown

    assert "result.nc" in shown
    assert find_run(Path("outputs"), str(first.folder)).folder == first.folder
    with pytest.raises(ArtifactError, match="No run below outputs has an id that begins with 'zzzz'"):
        find_run(Path("outputs"), "zzzz")
    with pytest.raises(ArtifactError, match="Several runs"):
        find_run(Path("outputs"), "")
    assert main(["runs", "show"]) == 2


def test_two_runs_are_compared(here, capsys, tmp_path):
    one, other = list_runs(Path("outputs"), {"status": "finished"})
    settings = settings_that_differ(one, other)
    assert [row["setting"] for row in settings] == ["method.direction"]
    results = one.result(), other.result()
    rows = {row["value"]: row for row in values_that_differ(*results)}
    gap = results[0].data["recovered"].values - results[1].data["recovered"].values
    assert rows["recovered"]["largest difference"] == pytest.approx(float(np.abs(gap).max()))
    place = np.unravel_index(np.abs(gap).argmax(), gap.shape)
    assert rows["recovered"]["where"] == f"layer={place[0]}, head={place[1]}"
    np.testing.assert_allclose(difference(*results).data["value"].values, gap)
    page = tmp_path / "both.html"
    names = [run.facts["run"] for run in (one, other)]
    assert main(["runs", "compare", *names, "-o", str(page)]) == 0
    assert "method.direction" in capsys.readouterr().out
    assert "first minus second" in page.read_text(encoding="utf-8")
    assert settings_that_differ(one, one) == []
    drawn = Result(results[1].data, replace(results[1].info, task={**results[1].info.task, "seed": 1}))
    apart = {row["value"]: row for row in values_that_differ(results[0], drawn)}
    assert apart["per_example"]["where"] == "the prompts differ"
    short = Result(results[0].data.isel(layer=[0]), results[0].info)
    assert {row["where"] for row in values_that_differ(short, results[1])} >= {"1 and 3 layer"}
    assert main(["runs", "compare", names[0]]) == 2


def interrupted(*_):
    raise KeyboardInterrupt


def test_shards_are_merged_to_the_values_of_an_unsharded_run(here, capfd, tmp_path, monkeypatch):
    assert main(["run", *LONG, "shard=1/2", "force=true"]) == 0
    (waiting,) = list_runs(Path("outputs"), {"status": "unfinished"})
    with pytest.MonkeyPatch.context() as patch:  # gathering is interrupted
        patch.setattr(Result, "save", interrupted)
        assert main(["run", *LONG]) == 130
    assert "shard=0/2" in (waiting.folder / ".hydra/overrides.yaml").read_text()
    assert len(list_runs(Path("outputs"), {"status": "unfinished"})) == 1
    monkeypatch.chdir(tmp_path)
    assert main(["runs", "merge", "--in", str(here / "outputs")]) == 0
    monkeypatch.chdir(here)
    assert "cells reused" in capfd.readouterr().out
    assert not list_runs(Path("outputs"), {"status": "unfinished"})
    merged = next(run for run in list_runs(Path("outputs")) if "pos" in run.manifest["method"]["over"])
    cost = merged.manifest["cost"]
    assert cost["cells_reused"] + cost["cells_without_effect"] == cost["cells"]
    assert main(["run", *LONG, f"output={tmp_path}"]) == 0
    (whole,) = tmp_path.rglob("result.nc")
    same = [one.data.drop_vars("noise_floor") for one in (merged.result(), Result.load(whole))]
    xr.testing.assert_allclose(*same, rtol=0, atol=1e-6)
    assert main(["runs", "merge"]) == 0
    assert "nothing to merge" in capfd.readouterr().out


def test_what_is_no_run_is_never_cleaned(tmp_path, capsys):
    (tmp_path / "cells").mkdir()
    (tmp_path / "src/cells").mkdir(parents=True)
    (tmp_path / "package").mkdir()
    (tmp_path / "package/manifest.json").write_text('{"name": "other"}')
    assert list_runs(tmp_path) == []
    assert main(["runs", "clean", "run=*", "--in", str(tmp_path), "--yes"]) == 0
    assert (tmp_path / "src/cells").is_dir()


def test_a_run_that_a_process_is_at_is_not_cleaned(here, capsys):
    run = list_runs(Path("outputs"))[0]
    with folder_lock(run.folder, Path("outputs")):
        assert main(["runs", "clean", f"run={run.facts['run']}", "--yes"]) == 0
    assert "not removed" in " ".join(capsys.readouterr().out.split())
    assert run.folder.is_dir()


def test_cleaning_asks_first_and_needs_a_filter(here, capsys, monkeypatch):
    before = len(list_runs(Path("outputs")))
    assert main(["runs", "clean"]) == 2
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(["runs", "clean", "run=*"]) == 1
    assert "there was no answer" in capsys.readouterr().out
    monkeypatch.setattr("mechxai.cli.runs.Confirm.ask", lambda *_, **__: False)
    assert main(["runs", "clean", "run=*"]) == 1
    assert len(list_runs(Path("outputs"))) == before
    first = list_runs(Path("outputs"))[0]
    assert main(["runs", "clean", f"run={first.facts['run']}", "--yes"]) == 0
    assert not first.folder.exists()
    assert len(list_runs(Path("outputs"))) == before - 1
    assert main(["runs", "clean", "model=none"]) == 0
    assert "that match" in capsys.readouterr().out


def test_what_has_no_waves_is_computed_by_one_shard_alone(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    lens = ["run", *OWN, "method=direct_logit_attribution"]
    assert main([*lens, "shard=1/2"]) == 0
    assert "shard 0 computes all" in capfd.readouterr().out
    assert not list(tmp_path.rglob("cells"))
    assert main([*lens, "shard=0/2"]) == 0
    (alone,) = list_runs(Path("outputs"))
    assert alone.finished
    both = ["run", *LONG, "name=two", "+also.patterns._target_=mechxai.AttentionPatterns"]
    for shard in (1, 0):
        assert main([*both, f"shard={shard}/2"]) == 0
    shown = capfd.readouterr().out
    assert shown.count("patterns: done in") == 1
    assert "patterns: there are no waves to share; shard 0 computes it" in shown
    assert main(["runs", "merge"]) == 0
    assert "patterns: already finished" in capfd.readouterr().out
    (page,) = tmp_path.rglob("two/*/*/report.html")
    assert page.read_text(encoding="utf-8").count('<section id="result-') == 2


def test_shards_share_every_block_of_edges(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    own = ["run", *OWN, "method=edge_patching", "task.n=4", "tokens_per_wave=128"]
    for shard in (0, 1):
        assert main([*own, f"shard={shard}/2"]) == 0
    assert main(own) == 0
    (merged,) = list_runs(Path("outputs"))
    cost = merged.manifest["cost"]
    assert cost["cells_reused"] + cost["cells_without_effect"] == cost["cells"]
    assert main([*own, f"output={tmp_path / 'whole'}"]) == 0
    (whole,) = list_runs(tmp_path / "whole")
    np.testing.assert_allclose(merged.result().data["value"], whole.result().data["value"], atol=1e-6)
