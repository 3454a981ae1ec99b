"""Sweeps: watched, gone on with, gathered; by several launchers, several processes, and killed at random."""

import errno
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import xarray as xr

from mechxai.cli import main
from mechxai.core.result import Result
from mechxai.sweeps.overrides import check_overrides
from mechxai.sweeps.ray_settings import ray_overrides
from mechxai.sweeps.record import JobRecord, load_records
from mechxai.sweeps.summary import summary_rows, write_summary
from mechxai.sweeps.watch import sweep_hash

MODEL = ("debug=tiny", "model=zoo/handmade-ioi", "task.template=0", "task.order=abba", "name=swept")
SWEEP = ("-m", *MODEL, "method.site=resid_pre,attn_out,bogus")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mechxai.cli", "run", *arguments]


def test_a_failed_job_stops_no_other_and_is_told_twice(here, capsys):
    assert main(["run", *SWEEP]) == 1
    shown = capsys.readouterr()
    assert "job 2 failed: SiteError" in " ".join(shown.out.split()), "as it happens"
    assert "1 of 3 jobs did not finish" in " ".join(shown.err.split()), "and at the end"
    assert "method.site=bogus" in shown.err
    (folder,) = (here / "outputs/debug/sweeps/swept").iterdir()
    table = pd.read_parquet(folder / "results.parquet")
    assert list(table["method.site"]) == ["resid_pre", "attn_out", "bogus"]
    assert list(table["status"]) == ["finished", "finished", "failed"]
    assert "SiteError" in table["error"][2]
    for place in (0, 1):
        data = Result.load(Path(table["folder"][place]) / "result.nc").data
        assert table["strongest"][place] == pytest.approx(float(abs(data["recovered"]).max()), abs=1e-9)
    page = (folder / "sweep.html").read_text(encoding="utf-8")
    assert "bogus" in page
    assert "http" not in page.split("<body>")[1].split("<script")[0]


def test_a_sweep_that_is_run_again_computes_nothing_and_leaves_the_same_files(here, capsys):
    assert main(["run", *SWEEP[:-1], "method.site=resid_pre,attn_out"]) == 0
    before = files(here)
    times = {path: path.stat().st_mtime_ns for path in here.rglob("result.nc")}
    capsys.readouterr()
    assert main(["run", *SWEEP[:-1], "method.site=resid_pre,attn_out"]) == 0
    assert capsys.readouterr().out.count("already finished") == 2
    assert files(here) == before
    assert times == {path: path.stat().st_mtime_ns for path in here.rglob("result.nc")}


def test_numbers_that_are_swept_over_are_numbers_in_the_table(tmp_path):
    found = [JobRecord(at, (f"task.seed={at}", f"method.pos={pos}")).failed("x") for at, pos in enumerate((1, "last"))]
    write_summary(tmp_path, found, summary_rows(found))
    table = pd.read_parquet(tmp_path / "results.parquet")
    assert list(table["task.seed"]) == [0, 1]
    assert list(table["method.pos"]) == ["1", "last"]


def test_a_disk_too_full_for_the_table_costs_the_table_alone(here, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "no space", "results.parquet")

    monkeypatch.setattr("mechxai.sweeps.summary.write_summary", full)
    assert main(["run", *SWEEP[:-1], "method.site=z,bogus"]) == 1
    shown = " ".join(capsys.readouterr().err.split())
    assert "1 of 2 jobs did not finish" in shown
    assert "once that is mended, the same command runs the other jobs" in shown
    assert "NoSpaceError: Cannot write results.parquet: the disk is full." in shown


def test_jobs_are_told_in_their_order_with_what_is_left(here, capsys, monkeypatch):
    monkeypatch.setattr("mechxai.sweeps.watch._REUSED", 0.0)  # a quick machine needs less for such a job
    assert main(["run", *SWEEP[:-1], "method.site=z,resid_pre"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("job ")]
    assert [line.split(":")[0].split(" finished")[0] for line in lines] == ["job 0", "job 0", "job 1", "job 1"]
    assert "1 of 2 ended, about 0:0" in lines[1]
    assert lines[3].endswith("2 of 2 ended")


def test_a_sweep_that_is_told_to_end_sums_up(here):
    running = subprocess.Popen(command(*SWEEP), stdout=subprocess.PIPE, text=True, cwd=here)
    for line in running.stdout:
        if line.startswith("job 0 finished"):
            running.terminate()
            break
    rest = running.stdout.read()
    assert running.wait(60) == 130
    assert "sweep.html" in rest


@pytest.mark.parametrize("place", [0, 3, 99])
def test_flags_may_stand_anywhere(here, place):
    own = [*MODEL, "method.over=[layer]", "method.site=resid_pre,attn_out"]
    own.insert(place, "-m")
    assert main(["run", *own]) == 0
    (table,) = here.rglob("results.parquet")
    assert list(pd.read_parquet(table)["status"]) == ["finished"] * 2


def test_two_sweeps_of_the_same_command_end_alike(here):
    own = command("-m", *MODEL, "method.over=[layer]", "method.site=resid_pre,bogus")
    both = [subprocess.Popen(own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [1, 1], said
    assert sum("another process runs it" in one for one in said) == 1, said
    (table,) = here.rglob("results.parquet")
    assert list(pd.read_parquet(table)["status"]) == ["finished", "failed"]


@pytest.mark.parametrize("methods", ["activation_patching,ablation", "ablation,activation_patching"])
def test_a_combination_that_does_not_compose_is_a_failed_job_and_the_other_goes_on(here, capsys, methods):
    own = ["run", "-m", *MODEL, f"method={methods}", "method.over=[layer]", "method.direction=noise"]
    assert main(own) == 1
    shown = capsys.readouterr()
    assert "job 1 failed: ConfigError: Unknown key 'method.direction'" in " ".join(shown.out.split())
    assert "1 of 2 jobs did not finish" in shown.err
    assert "mechxai run -m" in shown.err
    (path,) = here.rglob("results.parquet")
    table = pd.read_parquet(path)
    assert list(table["method"]) == ["activation_patching", "ablation"]
    assert list(table["status"]) == ["finished", "failed"]


def test_a_sweep_of_which_no_job_starts_is_no_success(here, capsys):
    assert main(["run", "-m", *MODEL, "method=activation_patching,ablation", "method.nothing=1"]) == 2
    assert "method.nothing" in capsys.readouterr().err
    assert main(["run", "-m", *MODEL, "seed=interval(0,1)"]) == 2
    assert "lists" in capsys.readouterr().err
    assert not list(here.iterdir())


def test_jobs_that_were_not_started_are_listed_with_the_command_that_goes_on(here, capsys, monkeypatch):
    def interrupted(config, show):
        raise KeyboardInterrupt

    monkeypatch.setattr("mechxai.cli.guarded_job.run_job", interrupted)
    own = ["-m", *MODEL, "method.site=resid_pre,attn_out,z"]
    assert main(["run", *own]) == 130
    shown = capsys.readouterr().err
    assert "1 of 3 jobs did not finish" in shown
    assert "interrupted" in shown
    assert "2 of 3 jobs were not started" in shown
    assert f"mechxai run {' '.join(own)}" in shown
    (path,) = here.rglob("results.parquet")
    assert list(pd.read_parquet(path)["status"]) == ["failed", "not started", "not started"]


def test_a_sweep_of_own_configurations_has_their_name(here):
    own = here / "mine, and more"
    (own / "experiment").mkdir(parents=True)
    (own / "experiment/study.yaml").write_text("# @package _global_\nmethod:\n  over: [layer]\n")
    sites = "method.site=resid_pre,attn_out"
    plain = ["run", "-m", "--config-dir", str(own), "debug=tiny", "model=zoo/handmade-ioi", sites]
    assert main([*plain, "experiment=study"]) == 0
    (table,) = here.rglob("results.parquet")
    assert table.parents[1].name == "study"
    assert str(table.parents[3].relative_to(here)) == "outputs/debug"
    folders = [
        check_overrides([*plain[1:], "experiment=study", "name=called"]),
        check_overrides(plain[1:]),
    ]
    assert [folder.name for folder in folders] == ["called", "mine, and more"]
    assert check_overrides(plain[2:-1]) is None, "one job"


def test_methods_are_told_apart_in_the_table(here):
    assert main(["run", "-m", *MODEL, "method=activation_patching,ablation"]) == 0
    (path,) = here.rglob("results.parquet")
    table = pd.read_parquet(path)
    assert list(table["method"]) == ["activation_patching", "ablation"]
    Path(table["folder"][0], "result.nc").write_bytes(b"damaged")
    rows = summary_rows(load_records(path.parent))
    assert [row.status for row in rows] == ["damaged", "finished"]


def test_every_choice_of_a_sweep_is_checked_before_anything_runs(here, capsys):
    assert main(["run", "-m", "model=zoo/ioi,zoo/plantd-ioi"]) == 2
    assert "zoo/planted-ioi" in capsys.readouterr().err
    assert not list(here.iterdir())


def test_two_processes_that_start_the_same_job_do_it_once(here):
    own = command(*MODEL, "method.site=z", "method.over=[layer,head,pos]", "task.n=16", "tokens_per_wave=512")
    both = [subprocess.Popen(own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("already finished" in one for one in said) == 1, said
    assert len(list(here.rglob("result.nc"))) == 1
    (manifest,) = here.rglob("manifest.json")
    assert json.loads(manifest.read_text())["cost"]["cells_reused"] == 0


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_other_launchers_end_with_the_same_table(here, launcher):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.split('_')[0]}_launcher")
    own = [f"hydra/launcher={launcher}", *(["hydra.launcher.n_jobs=2"] if launcher == "joblib" else [])]
    done = subprocess.run(command(*SWEEP, *own), capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "job 2 failed: SiteError" in " ".join(done.stdout.split())
    found = summary_rows(load_records(here / "outputs"))
    assert [row.status for row in found] == ["finished", "finished", "failed"]
    assert found[0].headline.startswith("recovered 1")


@pytest.mark.slow
def test_ray_with_two_workers(here):
    """Only the launcher is named; no dashboard is opened, and nothing written outside but Ray's own logs."""
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    home = here / "home"
    home.mkdir()
    own = [*SWEEP, "hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "HOME": str(home)
    }
    done = subprocess.run(command(*own), env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "dashboard at" not in done.stdout + done.stderr
    assert not (home / ".ray").exists()
    found = load_records(here / "outputs")
    assert [row.status for row in summary_rows(found)] == ["finished", "finished", "failed"]
    assert len({record.where for record in found[:2]}) == 2, "two workers"
    again = subprocess.run(command(*own), env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert "already finished" in again.stdout


def test_ray_is_given_what_it_needs_and_no_more(monkeypatch):
    known = ("ADDRESS", "AUTH_MODE", "AUTH_TOKEN", "USAGE_STATS_ENABLED", "ACCEL_ENV_VAR_OVERRIDE_ON_ZERO")
    for name in (f"RAY_{one}" for one in known):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    assert ray_overrides(["hydra/launcher=joblib"]) == []
    assert "RAY_USAGE_STATS_ENABLED" not in os.environ
    assert ray_overrides(["hydra/launcher=ray", "hydra.launcher.ray.init.address=host"]) == []
    assert "RAY_AUTH_MODE" not in os.environ, "a cluster that runs has its own"
    assert ray_overrides(["hydra/launcher=ray"]) == ["+hydra.launcher.ray.init.include_dashboard=false"]
    assert (os.environ["RAY_AUTH_MODE"], os.environ["RAY_USAGE_STATS_ENABLED"]) == ("token", "0")
    assert ray_overrides(["hydra/launcher=ray", "+hydra.launcher.ray.init.include_dashboard=true"]) == []


def test_a_sweep_is_named_by_what_it_asks():
    assert sweep_hash(["a=1", "b=2"]) == sweep_hash(["b=2", "a=1", "hydra/launcher=joblib", "force=true"])
    assert sweep_hash(["a=1"]) != sweep_hash(["a=2"])


def test_a_job_that_died_is_told_and_a_damaged_record_left_out(tmp_path):
    JobRecord(0, ("a=1",)).save(tmp_path / "jobs/0")
    JobRecord(1, ("a=2",)).failed("broken").save(tmp_path / "jobs/1")
    (tmp_path / "jobs/2").mkdir()
    (tmp_path / "jobs/2/job.json").write_text("{")
    found = load_records(tmp_path)
    assert [record.status for record in found] == ["running", "failed"]
    assert [row.varied for row in summary_rows(found)] == [{"a": "1"}, {"a": "2"}]


def kill(sweep: int, *, only_worker: bool) -> int:
    """Ends a sweep of joblib's, or one of its workers (others of its children track resources); how many were ended."""
    if not only_worker:
        os.killpg(sweep, signal.SIGKILL)
        return 1
    children = Path(f"/proc/{sweep}/task/{sweep}/children").read_text().split()
    workers = [pid for pid in children if b"popen_loky" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    if workers:
        os.kill(int(workers[0]), signal.SIGKILL)
    return min(1, len(workers))


@pytest.mark.slow
def test_chaos(tmp_path):
    """24 jobs over two models, workers killed at random until all are done: the values of an undisturbed sweep."""
    jobs = (
        "-m",
        "debug=tiny",
        "name=chaos",
        "model=zoo/handmade-ioi,zoo/planted-ioi",
        "task.n=8",
        "method.site=resid_pre,attn_out,z",
        "method.direction=denoise,noise",
        "task.seed=0,1",
        "tokens_per_wave=128",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
    )
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    calm.mkdir()
    stormy.mkdir()
    subprocess.run(command(*jobs), cwd=calm, check=True, timeout=900, stdout=subprocess.DEVNULL)
    expected = {path.parent.name: Result.load(path).data for path in calm.rglob("result.nc")}
    assert len(expected) == 24
    finished: dict[str, int] = {}
    kills = 0
    for attempt in range(40):
        process = subprocess.Popen(
            command(*jobs), cwd=stormy, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        deadline, wanted = time.monotonic() + 300, len(finished) + 3 + attempt % 3
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
            if len(list(stormy.rglob("manifest.json"))) >= wanted and list(stormy.rglob("cells/*.safetensors")):
                kills += kill(process.pid, only_worker=attempt % 2 == 0)
                break
        code = process.wait()
        done = [path.parent / "result.nc" for path in stormy.rglob("manifest.json")]
        now = {path.parent.name: path.stat().st_mtime_ns for path in done}
        assert now | finished == now, "what was finished is not written again"
        finished = now
        if code == 0:
            break
    assert code == 0
    assert kills >= 3
    found = {path.parent.name: Result.load(path) for path in stormy.rglob("result.nc")}
    assert set(found) == set(expected)
    for name, result in found.items():
        same = [one.drop_vars("noise_floor") for one in (result.data, expected[name])]
        xr.testing.assert_allclose(*same, rtol=0, atol=1e-6)
    reused = sum(result.info.cost["cells_reused"] > 0 for result in found.values())
    assert reused >= 1, "an interrupted job went on with its finished waves"
    assert {path.replace("calm", "stormy") for path in files(calm)} == files(stormy)


def test_a_launcher_that_is_not_installed_is_said(here, capsys):
    for launcher, said in (("ray", "mechxai[ray]"), ("joblb", "joblib")):
        if launcher == "ray" and importlib.util.find_spec("ray"):
            continue
        assert main(["run", "-m", *MODEL, f"hydra/launcher={launcher}"]) == 2
        assert said in capsys.readouterr().err


def test_a_report_that_was_not_reached_is_written(here, capsys):
    own = ["run", "experiment=ioi_patching", *MODEL]
    assert main(own) == 0
    (page,) = here.rglob("report.html")
    page.unlink()
    (page.parent / ".report.html.99.part").write_text("half")
    assert main(own) == 0
    assert page.is_file()
    assert not list(here.rglob("*.part"))
    assert "cells x" not in capsys.readouterr().out.rpartition("report:")[2]


def test_what_a_killed_process_left_is_swept_up(here):
    own = ["run", *MODEL, "method.site=resid_pre", "method.over=[layer]"]
    assert main(own) == 0
    (folder,) = {path.parent for path in here.rglob("result.nc")}
    for left in (folder / ".result.nc.99.part", folder / "figures/.x.html.99.part", folder / "cells/.w.99.part"):
        left.parent.mkdir(exist_ok=True)
        left.write_text("half")
    assert main([*own, "method.layers=null"]) == 0
    (folder / "manifest.json").unlink()
    assert main(own) == 0
    assert not list(folder.rglob("*.part"))


def test_the_page_of_one_method_is_not_taken_for_that_of_several(here, capsys):
    both = ["run", *MODEL, "method.over=[layer]", "+also.dla._target_=mechxai.DirectLogitAttribution"]
    assert main(both[:-1]) == 0
    (page,) = here.rglob("report.html")
    assert main(both[:-1]) == 0
    assert "nothing computed" in capsys.readouterr().out
    assert main(both) == 0
    joint = page.read_text(encoding="utf-8")
    assert joint.count('<section id="result-') == 2
    assert len(json.loads((page.parent / "manifest.json").read_text())["report"]) == 2
    capsys.readouterr()
    assert main(both) == 0
    assert main(both[:-1]) == 0
    assert capsys.readouterr().out.count("nothing computed") == 2, "the joint page is there, and tells of the one too"
    assert page.read_text(encoding="utf-8") == joint
    assert main([*both[:-1], "force=true"]) == 0
    assert page.read_text(encoding="utf-8") != joint
    assert main(both) == 0
    assert page.read_text(encoding="utf-8").count('<section id="result-') == 2, "a run of its own, then joined again"
