"""The wheel is complete: installed into an empty environment, it runs an experiment from another directory."""

import subprocess
import sys
import zipfile

import pytest

from tests.packaging import smoke


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(smoke.ROOT)],
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
        "_docs/errors.md",
        "explore/assets/explore.js",
        "explore/assets/explore.css",
        "py.typed",
    ):
        assert f"mechxai/{needed}" in names
    for model in ("ioi", "induction", "planted-ioi", "interchange-ioi", "handmade-ioi", "handmade-induction"):
        assert f"mechxai/model/zoo/{model}/model.safetensors" in names
    assert not [name for name in names if name.startswith(("configs/", "experiments/", "tests/"))], (
        "generic top-level names collide"
    )
    assert sum(info.file_size for info in zipfile.ZipFile(wheel).infolist()) < 14 * 2**20


def test_installed_wheel_works_elsewhere(wheel, tmp_path):
    smoke.first_steps(smoke.sharing(tmp_path, wheel))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "package"),
    [("png", "kaleido"), ("joblib", "joblib"), ("slurm", "submitit"), ("endpoint", "openai"), ("explore", "dash")],
)
def test_extras(wheel, tmp_path, extra, package):
    pytest.importorskip(package)
    smoke.EXTRAS[extra](smoke.sharing(tmp_path, wheel))
