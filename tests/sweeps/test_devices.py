"""Jobs that run at the same time have a GPU each."""

import pytest
import torch
from omegaconf import OmegaConf

from mechxai.cli import main
from mechxai.model import load
from mechxai.sweeps.devices import reserved_device


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_jobs_take_free_gpus_and_then_turns(two_gpus, tmp_path, monkeypatch):
    config = OmegaConf.create({"model": {"device": "auto"}, "output": str(tmp_path)})
    with reserved_device(config, 3) as one, reserved_device(config, 5) as other, reserved_device(config, 6) as third:
        assert [one.model.device, other.model.device, third.model.device] == ["cuda:1", "cuda:0", "cuda:0"]
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
        with reserved_device(config, 7) as elsewhere:
            assert elsewhere.model.device == "cuda:1", "of other GPUs, none is held"
    with reserved_device(config, 5) as again:
        assert again.model.device == "cuda:1"
    assert config.model.device == "auto"


def test_a_named_device_one_gpu_and_a_job_alone_stay_as_they_are(two_gpus, tmp_path, monkeypatch):
    named = OmegaConf.create({"model": {"device": "cuda:0"}, "output": str(tmp_path)})
    automatic = OmegaConf.create({"model": {"device": "auto"}, "output": str(tmp_path)})
    with reserved_device(named, 1) as one, reserved_device(automatic, None) as alone:
        assert (one.model.device, alone.model.device) == ("cuda:0", "auto")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with reserved_device(automatic, 1) as single:
        assert single.model.device == "auto"


@pytest.mark.parametrize(("launcher", "expected"), [("joblib", ["cuda:0", "cuda:1"]), ("basic", ["auto", "auto"])])
def test_a_sweep_gives_its_jobs_gpus(two_gpus, tmp_path, monkeypatch, launcher, expected):
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    asked = []
    monkeypatch.setattr(load, "device_of", lambda name: asked.append(name) or torch.device("cpu"))
    monkeypatch.chdir(tmp_path)
    own = ["debug=tiny", "model=zoo/handmade-ioi", "method.over=[layer]", "method.site=resid_pre,attn_out"]
    workers = ["hydra.launcher.n_jobs=1"] if launcher == "joblib" else []  # one runs here, where names can be read
    assert main(["run", "-m", *own, f"hydra/launcher={launcher}", *workers]) == 0
    assert asked == expected
