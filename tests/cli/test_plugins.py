"""Methods of one's own outside the package: named on the command line, and never imported for a file's sake."""

import json
import os
import subprocess
import sys

import pytest

from mechxai.cli import main
from mechxai.core.errors import ConfigError
from mechxai.methods import registry
from mechxai.sweeps.allowed_targets import check_plugins, check_targets, plugin_overrides
from tests.methods.test_catalog import NEW_METHOD

RUN = ["model=zoo/handmade-ioi", "task.n=4", "tracker=none", "figure.png=false"]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a module, its config, and a function that runs the command line in it."""
    (tmp_path / "my_module.py").write_text(NEW_METHOD.replace("mean_answer", "my_method").replace("MeanAnswer", "Mine"))
    (tmp_path / "conf/method").mkdir(parents=True)
    (tmp_path / "conf/method/my_method.yaml").write_text(
        "_target_: my_module.Mine\nmetric: ${metric.name}\nhalf: all\n"
    )

    def run(*arguments, **environment):
        command = [sys.executable, "-P", "-m", "mechxai.cli", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True, check=False
        )

    return tmp_path, run


def test_a_method_of_ones_own_runs_and_its_code_is_part_of_the_run(own):
    folder, run = own
    command = ["run", "plugins=[my_module]", "method=my_method", "--config-dir", "conf", *RUN]
    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert "my_method: done in" in done.stdout
    assert "already finished" in run(*command).stdout
    (manifest,) = folder.rglob("manifest.json")
    assert json.loads(manifest.read_text())["method"]["name"] == "my_method"
    module = folder / "my_module.py"
    module.write_text(module.read_text().replace("as_metric(self.metric)", "as_metric(self.metric)  # changed"))
    assert "my_method: done in" in run(*command).stdout, "other code is another run"


def test_a_sweep_and_shards_import_it_in_every_process(own):
    _, run = own
    done = run(
        "run", "-m", "plugins=[my_module]", "method=my_method", "--config-dir", "conf", "method.half=all,first", *RUN
    )
    assert done.returncode == 0, done.stderr
    assert "Sweep of 2 jobs, finished" in done.stdout


def test_without_the_plugin_its_target_is_refused(own):
    _, run = own
    done = run("run", "method=my_method", "--config-dir", "conf", *RUN)
    assert done.returncode == 2
    assert "method._target_='my_module.Mine' is not part of MechXAI" in " ".join(done.stderr.split())


def test_a_configuration_file_cannot_name_a_plugin(own):
    folder, run = own
    (folder / "my_module.py").write_text("raise SystemExit('imported')")
    (folder / "conf/experiment").mkdir()
    (folder / "conf/experiment/sly.yaml").write_text("# @package _global_\nplugins: [my_module]\n")
    done = run("run", "experiment=sly", "--config-dir", "conf", *RUN)
    assert done.returncode == 2
    assert "comes from a configuration file" in " ".join(done.stderr.split())
    assert "imported" not in done.stdout + done.stderr


def test_a_run_folder_never_imports_a_plugin(own, monkeypatch, capsys):
    folder, run = own
    assert run("run", "plugins=[my_module]", "method=my_method", "--config-dir", "conf", *RUN).returncode == 0
    (manifest,) = folder.rglob("manifest.json")
    config = manifest.parent / ".hydra/config.yaml"
    config.write_text(config.read_text().replace("mechxai.tasks.ioi", "my_module.task"))
    monkeypatch.chdir(folder)
    assert main(["explore", f"run={manifest.parent}", "browser=false"]) == 2
    assert "my_module.task" in capsys.readouterr().err
    assert "my_module" not in sys.modules


def test_an_installed_package_is_named_by_its_entry_point(own):
    folder, run = own
    package = folder / "installed"
    (package / "my_package-1.0.dist-info").mkdir(parents=True)
    (package / "my_package-1.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: my_package\nVersion: 1.0\n"
    )
    (package / "my_package-1.0.dist-info/entry_points.txt").write_text("[mechxai.methods]\nmine = my_module\n")
    (folder / "my_module.py").rename(package / "my_module.py")
    command = ["run", "plugins=[mine]", "method=my_method", "--config-dir", "conf", *RUN]
    done = run(*command, PYTHONPATH=os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")]))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "There is no module 'no_such_plugin'"), ("import no_such_library", "No module named 'no_such_library'")],
)
def test_a_plugin_that_cannot_be_imported_is_refused(tmp_path, monkeypatch, content, problem):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    name = "no_such_plugin" if content is None else "broken_plugin"
    if content is not None:
        (tmp_path / f"{name}.py").write_text(content)
    with pytest.raises(ConfigError, match=problem):
        registry.import_plugins([name])


def test_a_name_that_is_taken_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "twin_plugin.py").write_text(NEW_METHOD.replace('name="mean_answer"', 'name="saliency"'))
    with pytest.raises(ConfigError, match="'saliency' is registered twice"):
        registry.import_plugins(["twin_plugin"])


def test_targets_and_plugins(tmp_path, monkeypatch):
    (tmp_path / "my_module.py").write_text("import os\nfrom os import mkdir\nclass Mine: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    check_targets({"a": [{"_target_": "mechxai.tasks.ioi"}, {"_target_": "my_module.Mine"}]}, plugins=["my_module"])
    with pytest.raises(ConfigError, match="does not exist"):
        check_targets({"_target_": "my_module.Other"}, plugins=["my_module"])
    for target in ("os.system", "mechxai_evil.x", "my_modules.x", "mechxai", "my_module.mkdir", "my_module.os"):
        with pytest.raises(ConfigError, match="is not part of MechXAI"):
            check_targets({"a": {"_target_": target}}, plugins=["my_module"])
    assert plugin_overrides(["a=1", "plugins=[x, y]"]) == ["x", "y"]
    assert plugin_overrides(["+plugins=z"]) == ["z"]
    check_plugins(["x"], ["x", "y"])
    with pytest.raises(ConfigError, match="comes from a configuration file"):
        check_plugins(["x", "z"], ["x"])
