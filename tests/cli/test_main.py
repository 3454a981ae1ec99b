"""The command line: it runs, it teaches, it refuses."""

import errno
import gc
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import mechxai as mx
from mechxai.cli import console, main
from mechxai.core.errors import ConfigError
from mechxai.core.result import Result
from mechxai.methods.catalog import catalog
from mechxai.sweeps.allowed_targets import check_targets
from mechxai.sweeps.run_settings import RunSettings

TINY = ["debug=tiny", "model=zoo/handmade-ioi", "task.template=0", "task.order=abba"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_leaves_result_manifest_figure_report_and_config(here, capsys):
    assert main(["run", *TINY, "method.site=z", "method.over=[layer,head]"]) == 0
    (folder,) = (here / "outputs/debug/run/zoo-handmade-ioi").iterdir()
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {
        "result.nc",
        "manifest.json",
        "report.html",
        "figures/z.html",
        ".hydra/config.yaml",
        ".hydra/overrides.yaml",
    } == files
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["model"]["weight_hash"] == mx.load("zoo/handmade-ioi").weight_hash
    assert manifest["task"]["name"] == "ioi"
    assert manifest["versions"]["torch"]
    recovered = mx.Result.load(folder / "result.nc").data["recovered"]
    assert recovered.dims == ("layer", "head")
    np.testing.assert_allclose(
        recovered.values[0, 1], 1.0, atol=1e-3, err_msg="the duplicate-token head carries everything"
    )
    shown = capsys.readouterr().out
    assert "forward passes" in shown, "the cost is said first"
    assert shown.index("z: recovered 1 at blocks.0.z[head=1]") < shown.index("done in"), "a number before any file"
    assert main(["run", *TINY, "method.site=z", "method.over=[layer,head]"]) == 0
    assert "already finished" in capsys.readouterr().out
    before = (folder / "result.nc").stat().st_mtime_ns
    assert main(["run", *TINY, "method.site=z", "method.over=[layer,head]", "force=true"]) == 0
    assert (folder / "result.nc").stat().st_mtime_ns > before


def test_a_first_method_takes_the_place_of_the_companion_at_its_site(here, capsys):
    sites = "method.site=resid_pre,attn_out,z"
    assert main(["run", "-m", "experiment=ioi_patching", sites, "plan=true", "task.n=4", "tracker=none"]) == 0
    shown = capsys.readouterr().out
    assert "also.attn_out is left out" in shown
    assert "also.z, over layer, head, is called z-layer-head" in shown, "another question"


def test_the_garbage_collector_is_left_as_it_was(here):
    before = gc.get_threshold()
    assert main(["run", "method.sit=z"]) == 2
    assert gc.get_threshold() == before


def test_multirun_makes_one_folder_per_job(here):
    assert main(["run", "-m", *TINY, "method.site=resid_pre,attn_out"]) == 0
    assert len(list((here / "outputs/debug/run/zoo-handmade-ioi").iterdir())) == 2


def test_the_demo_names_the_handmade_heads(here, capsys):
    assert main(["run", "experiment=ioi_patching", *TINY]) == 0
    shown = capsys.readouterr().out
    assert "3 of 3 handmade heads found" in shown
    assert "mlp_out: left out" in shown
    (report,) = here.rglob("report.html")
    page = report.read_text()
    assert "name_mover" in page
    assert "3 of 3 handmade heads found" in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "method.sit=z"], "Did you mean 'method.site'"),
        (["run", "experiment=ioi_patchin"], "Did you mean 'ioi_patching'"),
        (["run", "model=zoo/iooi"], "Did you mean 'zoo/ioi'"),
        (["run", "task.ordr=abba"], "Did you mean 'task.order'"),
        (["run", "method.over=[layer,head"], "cannot be read"),
        (["rum"], "Did you mean 'run'"),
        (
            ["run", "task.seed=0,1"],
            "mechxai run -m runs one after the other; as one value, a list is 'task.seed=[0,1]'",
        ),
        (["run", "-model=zoo/ioi"], "a dash before a key"),
        (["report"], "needs a result file"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_nearest_match(here, capsys, arguments, said):
    assert main(arguments) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("processes=0", "one process at least"),
        ("processes=many", "is not a whole number"),
        ("tracker.mode=ofline", "Did you mean 'offline'"),
        ("model.name=/no/such/place", "no such folder"),
        ("output=taken", "output=taken cannot be created: "),
        ("output=taken/below", "output=taken/below cannot be created: "),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_computed(here, capsys, override, said):
    (here / "taken").write_text("a file")
    tracker = [] if override.startswith("tracker") else ["tracker=none"]
    code = 1 if override.startswith("model") else 2
    assert main(["run", "model=zoo/handmade-ioi", "task.n=4", *tracker, override]) == code
    shown = capsys.readouterr()
    assert said in shown.err.replace("\n", " ")
    assert "cells" not in shown.out


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_cannot_be_written_is_no_traceback(here, capsys, monkeypatch, number):
    def full(*_):
        raise OSError(number, os.strerror(number), "result.nc")

    monkeypatch.setattr(Result, "save", full)
    assert main(["run", *TINY]) == 1
    shown = " ".join(capsys.readouterr().err.split())
    assert "write result.nc: " in shown
    assert ("NoSpaceError" in shown) == (number == errno.ENOSPC)


@pytest.mark.parametrize("command", ["methods", "models", "tasks", "report", "explain", "completion"])
def test_every_command_has_its_help(capsys, command):
    assert main([command, "--help"]) == 0
    assert f"mechxai {command}" in capsys.readouterr().out


def test_square_brackets_stay_in_tables(capsys):
    console.show({"title": "of [two]", "rows": [{"at": "z[pos=1]", "[b]": "c"}]})
    shown = capsys.readouterr().out
    assert all(one in shown for one in ("of [two]", "z[pos=1]", "[b]"))


def test_errors_of_a_job_are_shown_and_counted(here, capsys):
    assert main(["run", *TINY, "method.site=mlp_out"]) == 2
    assert "attention-only" in capsys.readouterr().err.replace("\n", " ")


def test_targets_outside_mechxai_are_refused():
    with pytest.raises(ConfigError, match=r"os\.system"):
        check_targets({"method": {"then": [{"_target_": "os.system", "command": "true"}]}})
    check_targets({"method": {"_target_": "mechxai.methods.patching.ablation.Ablation"}})


def test_a_foreign_target_never_runs(here, capsys):
    assert main(["run", *TINY, "method._target_=os.mkdir", "+method.path=made"]) != 0
    assert not (here / "made").exists()


@pytest.mark.parametrize("command", ["methods", "models", "tasks", "runs", "--help"])
def test_listings(here, capsys, command):
    assert main([command]) == 0
    assert len(capsys.readouterr().out) > 50


def test_one_method_whole(here, capsys):
    assert main(["methods", "integrated_gradients", "lime"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for said in ("Sundararajan et al. 2017", "depends on the baseline", "n_steps=50", "mx.Lime(", "method=lime"):
        assert said in shown
    assert main(["methods", "integratd_gradients"]) == 2
    assert "integrated_gradients" in capsys.readouterr().err


def test_the_table_of_the_documentation_is_the_one_that_markdown_prints(capsys):
    assert main(["methods", "--markdown"]) == 0
    printed = capsys.readouterr().out.strip()
    assert printed.count("\n| `") == len(catalog())
    hook = runpy.run_path(str(Path(__file__, "../../../docs/hooks/methods.py").resolve()))
    links = re.compile(r"\[(`\w+`)\]\(\w+\.md#\w+\)")
    assert links.sub(r"\1", hook["table"]()) == printed


def test_report_command(here, capsys):
    assert main(["run", *TINY, "method.site=z", "method.over=[layer,head]"]) == 0
    (result,) = here.rglob("result.nc")
    assert main(["report", str(result), "-o", "page.html"]) == 0
    assert "z" in (here / "page.html").read_text()


def test_help_and_cfg_teach():
    for arguments, said in ((["--help"], "Examples"), (["--cfg", "job"], "resid_pre")):
        done = subprocess.run(
            [sys.executable, "-m", "mechxai.cli", "run", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert said in done.stdout


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["task=cot_jsonl", "model=zoo/cot", "method=early_answering"], "Set task.path=VALUE"),
        (["task.n=abc"], "task.n='abc' is not a whole number"),
        (["experiment=cot_faithfulness", "~method@also.attribution"], "also.attribution=null leaves it out"),
    ],
)
def test_what_a_task_or_a_companion_lacks_is_said(here, capsys, overrides, said):
    assert main(["run", "debug=tiny", *overrides]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not list(here.rglob("result.nc"))


def test_an_interrupted_job_says_that_it_can_go_on(here, capsys, monkeypatch):
    def interrupted(config, show):
        raise KeyboardInterrupt

    monkeypatch.setattr("mechxai.cli.guarded_job.run_job", interrupted)
    assert main(["run", "debug=tiny"]) == 130
    assert "run the same command to go on" in " ".join(capsys.readouterr().err.split())


def test_a_tracker_that_fails_costs_only_itself(here, capsys, monkeypatch):
    from mechxai.tracking.tracker import NullTracker

    def broken(self, *args, **kwargs):
        raise RuntimeError("no network")

    monkeypatch.setattr(NullTracker, "start", broken)
    assert main(["run", *TINY, "method.site=z", "method.over=[layer,head]"]) == 0
    assert list(here.rglob("result.nc"))
    assert "no network" in capsys.readouterr().out


def test_a_plan_is_shown_and_nothing_written(here, capsys):
    assert main(["run", "experiment=ioi_patching", "model=zoo/planted-ioi", "tracker=none", "plan=true"]) == 0
    shown = capsys.readouterr().out
    for part in ("without effect, not computed", "level", "4 (fused)", "GFLOP", "expected time"):
        assert part in shown
    assert not (here / "outputs").exists()


def test_processes_share_the_waves_and_the_result_is_gathered(here, capfd):
    sweep = ["model=zoo/planted-ioi", "tracker=none", "figure.png=false", "method.site=z", "tokens_per_wave=2000"]
    assert main(["run", *sweep, "method.over=[layer,head]", "output=shared", "processes=2"]) == 0
    shown = " ".join(capfd.readouterr().out.split())
    assert shown.count("is done") + shown.count("every wave is there") == 2
    assert "1,536 of 1,536 cells reused" in shown
    assert main(["run", *sweep, "method.over=[layer,head]", "output=alone"]) == 0
    results = [mx.Result.load(next((here / name).rglob("result.nc"))).data for name in ("shared", "alone")]
    xr.testing.assert_allclose(*results, rtol=0, atol=1e-5)  # each process has fewer threads, which moves last bits


@pytest.mark.parametrize("shard", ["2/2", "0", "a/b", "-1/2"])
def test_a_shard_that_cannot_be_is_refused(shard):
    with pytest.raises(ConfigError, match="i/n with i from 0"):
        RunSettings(shard=shard)


def test_shards_end_with_the_process_that_shares_out(monkeypatch):
    import mechxai.sweeps.job as module

    class Child:
        ended = False

        def wait(self):
            if not self.ended:
                raise KeyboardInterrupt
            return -15

        def terminate(self):
            self.ended = True

    children = [Child(), Child()]
    made = iter(children)
    monkeypatch.setattr(module.subprocess, "Popen", lambda *_, **__: next(made))
    with pytest.raises(KeyboardInterrupt):
        module.run_shards([], 2)
    assert all(child.ended for child in children)
