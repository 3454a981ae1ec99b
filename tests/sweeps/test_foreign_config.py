"""A configuration from elsewhere runs no code: targets, resolvers, hydra's own part, overrides of a run folder."""

import shutil
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

import mechxai as mx
from mechxai.cli import main
from mechxai.core.errors import ConfigError
from mechxai.runs.query import list_runs
from mechxai.sweeps.allowed_targets import allowed_targets, check_targets, make
from mechxai.sweeps.foreign_config import check_folder_overrides, read_folder_config
from mechxai.sweeps.hydra_checks import check_hydra
from mechxai.sweeps.resolution import resolved

SHARDED = (
    "debug=tiny",
    "model=zoo/handmade-ioi",
    "task.template=0",
    "name=own",
    "output=outputs",
    "method.site=z",
    "method.over=[layer,head]",
    "tracker=none",
    "tokens_per_wave=256",
    "shard=0/2",
)
CODE = (
    "os.mkdir",
    "builtins.eval",
    "mechxai.methods.lens._lib.training.torch.load",
    "mechxai.runs.execute.shutil.rmtree",
    "mechxai.core.files.os.system",
    "mechxai.core.result.Result.load",
    "mechxai.core.files.write_atomic",
    "mechxai.cli.main.main",
    "mechxai.sweeps.job.run_shards",
    "mechxai",
    "",
    "mechxai.tasks.ioi.__globals__",
    "mechxai.tasks.os.mkdir",
    "torch.load",
)


@pytest.mark.parametrize("target", CODE)
@pytest.mark.parametrize("place", ["model", "deep", "list"])
def test_only_registered_targets_are_made(target, place, tmp_path):
    node = {"_target_": target, "path": str(tmp_path / "made")}
    config = {"model": node, "deep": {"a": {"b": node}}, "list": [1, [node]]}[place]
    with pytest.raises(ConfigError, match="is not part of MechXAI"):
        make(config)
    with pytest.raises(ConfigError, match="is not part of MechXAI"):
        check_targets({"x": config})
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("key", ["_args_", "_recursive_", "_convert_"])
def test_keys_that_change_a_call_are_refused(key):
    with pytest.raises(ConfigError, match=f"{key} is not allowed"):
        make({"_target_": "mechxai.Saliency", key: []})


def test_registered_targets_are_made():
    assert make({"_target_": "mechxai.Saliency"}) == mx.Saliency()
    made = make({"_target_": "mechxai.tasks.ioi", "_partial_": True, "n": 3, "template": "???"})
    assert made.func is mx.tasks.ioi
    assert made.keywords == {"n": 3}
    assert make({"a": [1, {"b": None}]}) == {"a": [1, {"b": None}]}
    with pytest.raises(ConfigError, match=r"Saliency does not take these settings.*speed"):
        make({"_target_": "mechxai.Saliency", "speed": 3})
    assert {f"{type(method).__module__}.{type(method).__name__}" for method in (mx.Saliency(), mx.LogitLens())} <= (
        allowed_targets()
    )


@pytest.mark.parametrize(
    "value",
    [
        "${oc.create:{_target_: numpy.load, file: e.pkl, allow_pickle: true}}",
        "${oc.create :{a: 1}}",
        "${ oc.create:{a: 1}}",
        "${oc.deprecated:a}",
        "${hydra:runtime.cwd}",
        "${now:%Y}",
        "x${oc.dict.values:a}y",
    ],
)
def test_resolvers_that_are_not_listed_are_refused(value, tmp_path):
    config = {"a": {"b": 1}, "task": {"x": [value]}}
    with pytest.raises(ConfigError, match="uses the resolver"):
        resolved(OmegaConf.create(config))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match="uses the resolver"):
        read_folder_config(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    "config",
    [
        {"which": "create", "x": "${oc.${which}:{_target_: os.mkdir}}"},
        {"x": "${oc.decode:${y}}", "y": "\\${oc.create:{_target_: os.mkdir, path: made}}"},
        {"x": {"_target_": "${y}"}, "y": "os.mkdir"},
        {"x": "${y}", "y": {"_target_": "os.mkdir", "path": "made"}},
    ],
)
def test_what_interpolations_hide_is_seen_after_resolution(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError):
        read_folder_config(tmp_path / "config.yaml")
    assert not (tmp_path / "made").exists()


def test_ordinary_interpolations_are_resolved(monkeypatch):
    monkeypatch.setenv("PLACE", "there")
    config = OmegaConf.create({"a": "${oc.env:PLACE}/x", "b": "${oc.select:a}", "c": "${oc.decode:'[1, 2]'}"})
    assert resolved(config) == {"a": "there/x", "b": "there/x", "c": [1, 2]}


@pytest.mark.parametrize(
    "override",
    [
        "hydra.callbacks.x._target_=os.mkdir",
        "+hydra.launcher.setup=[touch made]",
        "hydra/launcher=ray",
        "hydra.searchpath=[file:///tmp]",
        "plugins=[os]",
        "~task",
        "--config-dir=/tmp",
        "experiment=../../evil",
        "+task@also.x=ioi",
        "method._target_=os.mkdir",
        "+also.x={_target_: os.mkdir, path: made}",
        "+task.x='${oc.create:{_target_: os.mkdir}}'",
        "+other.key=1",
    ],
)
def test_a_folder_may_only_set_known_values(override):
    with pytest.raises(ConfigError):
        check_folder_overrides(["method.site=z", override])


def test_ordinary_overrides_of_a_folder_pass():
    check_folder_overrides(
        [
            "experiment=ioi_patching",
            "model=zoo/ioi",
            "method.over=[layer,head]",
            "+also.dla._target_=mechxai.DirectLogitAttribution",
            "name=x",
            "tracker=none",
            "task.path=${oc.env:HOME}/x",
        ]
    )


def test_merging_a_folder_with_foreign_overrides_runs_nothing(tmp_path, monkeypatch, capsys):
    from mechxai.core.pieces import file_checksum, sealed, unsealed

    monkeypatch.chdir(tmp_path)
    assert main(["run", *SHARDED]) == 0
    (run,) = list_runs(Path("outputs"))
    overrides = run.files.config / "overrides.yaml"
    overrides.write_text(yaml.safe_dump([*SHARDED, "+hydra.callbacks.x={_target_: os.mkdir, path: made}"]))
    facts = run.folder / "unfinished.json"
    content = unsealed(facts.read_text())
    content["files"][".hydra/overrides.yaml"] = file_checksum(overrides)  # whoever sends it can seal it, too
    facts.write_text(sealed(content))
    assert main(["runs", "merge"]) == 2
    assert "comes from a run folder" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "made").exists()


def test_exploring_a_folder_with_a_foreign_target_runs_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", *[setting for setting in SHARDED if "shard" not in setting]]) == 0
    (run,) = list_runs(Path("outputs"))
    config = run.files.config / "config.yaml"
    content = yaml.safe_load(config.read_text())
    for part in ("model", "task", "tracker"):
        config.write_text(yaml.safe_dump({**content, part: {"_target_": "os.mkdir", "path": "made"}}))
        assert main(["explore", f"run={run.folder}", "browser=false"]) == 2
        assert "is not part of MechXAI" in capsys.readouterr().err.replace("\n", " ")
        assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "hydra",
    [
        {"callbacks": {"x": {"_target_": "os.mkdir", "path": "made"}}},
        {"job": {"env_set": {"LD_PRELOAD": "x.so"}}},
        {"launcher": {"_target_": "os.mkdir"}},
        {
            "launcher": {
                "_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
                "x": {"_target_": "os.mkdir"},
            }
        },
        {"launcher": {"setup": ["touch made"]}},
        {"sweeper": {"_target_": "os.mkdir"}},
        {"job_logging": {"handlers": {"x": {"()": "os.mkdir", "path": "made"}}}},
        {"job_logging": {"handlers": {"x": {"class": "logging.handlers.SocketHandler"}}}},
        {"hydra_logging": {"handlers": {"x": {"class": "logging.FileHandler", "filename": "/tmp/x"}}}},
        {"hydra_logging": {"handlers": {"x": {"class": "logging.StreamHandler", "stream": "ext://os.environ"}}}},
        {"run": {"dir": "${oc.create:{a: 1}}"}},
    ],
)
def test_hydra_settings_of_a_file_that_call_code_are_refused(hydra):
    with pytest.raises(ConfigError):
        check_hydra(OmegaConf.create({"hydra": hydra}))


def test_a_configuration_file_with_callbacks_runs_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = "# @package _global_\nhydra:\n  callbacks:\n    x:\n      _target_: os.mkdir\n      path: made\n"
    (tmp_path / "configs" / "experiment").mkdir(parents=True)
    (tmp_path / "configs" / "experiment" / "mine.yaml").write_text(text)
    for sweep in ((), ("-m",)):
        arguments = ["--config-dir", "configs", *sweep, "experiment=mine", "tracker=none", "debug=tiny"]
        assert main(["run", *arguments]) == 2
        assert "hydra.callbacks" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "made").exists()


# Environment and secrets ----------------------------------------------------------------------------------------------


def test_values_of_the_environment_stay_out_of_files_and_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROJECT", "hidden-project-7")
    settings = [setting for setting in SHARDED if not setting.startswith(("shard", "name"))]
    assert main(["run", *settings, "name=${oc.env:PROJECT}", "figure=html"]) == 0
    written = [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()]
    assert (tmp_path / "outputs" / "env-PROJECT").is_dir()
    for path in written:
        assert "hidden-project-7" not in str(path)
        assert b"hidden-project-7" not in path.read_bytes(), path
    shutil.rmtree("outputs")
    assert main(["run", *settings, "name=${oc.env:PROJECT}", "figure=html", "show_environment=true"]) == 0
    assert (tmp_path / "outputs" / "hidden-project-7").is_dir()


def test_secrets_are_masked():
    from mechxai.core.secrets import masked, masked_override

    data = {"api_key": "sk-1", "model": [{"hf_token": "t", "tokens_per_wave": 4, "key": "v"}], "password": ""}
    assert masked(data) == {
        "api_key": "***",
        "model": [{"hf_token": "***", "tokens_per_wave": 4, "key": "v"}],
        "password": "",
    }
    assert masked_override("model.api_key=sk-1") == "model.api_key=***"
    assert masked_override("tokens_per_wave=3") == "tokens_per_wave=3"
    assert masked("at /home/me/x", {"/home/me": "${oc.env:HOME}"}) == "at ${oc.env:HOME}/x"
    assert masked({"device": "cpu", "note": "cpus"}, {"cpu": "${oc.env:D}"}) == {
        "device": "${oc.env:D}",
        "note": "cpus",
    }
