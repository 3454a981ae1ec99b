"""The wheel holds all it needs: installed into an empty environment, it runs an experiment from another directory."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    (found,) = folder.glob("*.whl")
    return found


def test_wheel_contents(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "_configs/run.yaml",
        "_configs/experiment/ioi_patching.yaml",
        "_configs/__init__.py",
        "_experiments/train_zoo.py",
        "py.typed",
    ):
        assert f"mechxai/{needed}" in names
    for model in ("ioi", "induction", "planted-ioi", "interchange-ioi", "handmade-ioi", "handmade-induction"):
        assert f"mechxai/model/zoo/{model}/model.safetensors" in names
    assert not [name for name in names if name.startswith(("configs/", "experiments/", "tests/"))], (
        "generic top-level names collide"
    )
    assert sum(info.file_size for info in zipfile.ZipFile(wheel).infolist()) < 14 * 2**20


def test_installed_wheel_runs_an_experiment_elsewhere(wheel, tmp_path):
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=120)
    site = venv / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    python = venv / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)],
        check=True,
        timeout=300,
    )
    # The dependencies are those of the environment that runs the tests; our own checkout is not among them.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    where = subprocess.run(
        [str(python), "-c", "import mechxai; print(mechxai.__file__)"],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert str(venv) in where.stdout, "the installed wheel is what runs"
    command = [
        str(python),
        "-m",
        "mechxai.cli",
        "run",
        "experiment=ioi_patching",
        "debug=tiny",
        "model=zoo/handmade-ioi",
    ]
    done = subprocess.run(
        command, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3 handmade heads found" in done.stdout
    assert list(elsewhere.rglob("result.nc"))
