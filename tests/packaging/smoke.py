"""What a user does first with the built wheel, in an environment of its own, and then what each extra brings.

``python -m tests.packaging.smoke WHEEL [EXTRA ...]`` (`make release-check`) makes an empty environment for every extra
and installs the wheel and all it needs, as the lock has it. The daily tests share the packages of their own environment
instead (`sharing`), which takes seconds and not minutes.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from mechxai.model.load import load
from tests.serving import serving

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.lock"
TINY = ("debug=tiny", "model=zoo/handmade-ioi", "tracker=none")
_UNLOCKED = ("ray",)  # its launcher asks for older versions than the lock's of what others need too
_INSTALLING, _RUNNING = 3600, 900
_console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Installed:
    """The wheel in an environment.

    Attributes:
        venv: the environment.
        folder: where its commands run; no checkout is there.
    """

    venv: Path
    folder: Path

    @staticmethod
    def environment():
        """That of this process, without its places of packages."""
        own = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
        return own | {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "COLUMNS": "120"}

    def mechxai(self, *arguments):
        return self.command("mechxai", *arguments)

    def python(self, code):
        return self.command("python", "-c", code)

    def command(self, name, *arguments):
        """What it prints.

        Raises:
            AssertionError: it failed; with all that it said.
        """
        command = [str(self.venv / "bin" / name), *arguments]
        how = {"cwd": self.folder, "env": self.environment(), "capture_output": True, "text": True}
        done = subprocess.run(command, **how, timeout=_RUNNING, check=False)
        if done.returncode:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout


def sharing(folder, wheel):
    """The wheel alone in a new environment; what it needs comes from the environment that asks."""
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=120)
    command = [sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python"), "install", "--quiet", "--no-deps"]
    subprocess.run([*command, str(wheel)], check=True, timeout=300)
    site = venv / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    # found after the environment's own, so that the wheel goes before a checkout
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return _installed(folder, venv)


def plain(folder, wheel, extra):
    """The wheel with an extra and all they need in a new environment, in the lock's versions where they fit."""
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, timeout=120)
    wanted = f"{wheel}[{extra}]" if extra != "none" else str(wheel)
    locked = [] if extra in _UNLOCKED else ["-c", str(LOCK)]
    install = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", *locked, wanted]
    subprocess.run(install, check=True, timeout=_INSTALLING)
    return _installed(folder, venv)


def _installed(folder, venv):
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    found = Installed(venv, elsewhere)
    where = found.python("import mechxai; print(mechxai.__file__)")
    assert Path(where.strip()).is_relative_to(venv), f"not the wheel is what runs, but {where}"
    return found


def first_steps(installed):
    """Help, the registry, an error's page and a run: what needs no extra."""
    assert "mechxai COMMAND" in installed.mechxai("--help")
    assert "activation_patching" in installed.mechxai("methods")
    assert "complete" in installed.mechxai("completion", "bash")
    assert "experiment=ioi_patching" in installed.mechxai("completion", "candidates", "--", "run", "experiment=ioi_p")
    assert "SiteError" in installed.mechxai("explain", "SiteError")
    shown = installed.mechxai(
        "run", "experiment=ioi_patching", "model=zoo/planted-ioi", "task.n=4", "tracker=none", "figure.png=false"
    )
    assert "recovered" in shown
    assert list(installed.folder.rglob("result.nc"))
    assert list(installed.folder.rglob("report.html"))


def launcher(name):
    """A check that a sweep of two jobs runs with a launcher."""

    def check(installed):
        installed.mechxai("run", "-m", *TINY, f"hydra/launcher={name}", "seed=0,1")
        (table,) = installed.folder.rglob("results.parquet")
        rows = f"import pandas; print(list(pandas.read_parquet({str(table)!r})['status']))"
        assert installed.python(rows).strip() == "['finished', 'finished']"

    return check


def png(installed):
    """A PNG beside a run's page, where there is a browser."""
    available = "from mechxai.figures.browser import browser_available; print(browser_available())"
    if installed.python(available).strip() != "True":
        return "no browser here: no PNG was drawn"
    installed.mechxai("run", *TINY, "figure.png=true")
    (picture,) = installed.folder.rglob("*.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    return None


def endpoint(installed):
    """A text from a server."""
    with serving(load("zoo/ioi")) as server:
        code = (
            "import mechxai as mx; from mechxai.model.generation.connection import Connection; "
            f"asked = mx.load_generator('ioi', connection=Connection(base_url={server.url!r})); "
            "print(repr(asked.write(['When Mary and John went to the'], mx.Writing(4))[0].text))"
        )
        said = installed.python(code)
        assert len(server.seen) == 1
        assert len(said) > len("''\n")


def explore(installed):
    """The explorer's first page."""
    command = [str(installed.venv / "bin" / "mechxai"), "explore", "browser=false", "port=0"]
    running = subprocess.Popen(
        command, cwd=installed.folder, env=installed.environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        line = next(line for line in running.stdout if "http://" in line)
        address = re.search(r"http://\S+", line)[0]
        with urllib.request.urlopen(f"{address}_dash-layout", timeout=60) as answer:
            assert "heatmap" in answer.read().decode()
    finally:
        running.kill()
        running.wait()


EXTRAS: dict[str, Callable[[Installed], str | None]] = {
    "none": first_steps,
    "png": png,
    "joblib": launcher("joblib"),
    "slurm": launcher("submitit_local"),
    "ray": launcher("ray"),
    "endpoint": endpoint,
    "explore": explore,
}


def main(arguments):
    """Checks the extras in turn; each environment is removed before the next is made."""
    wheel, *wanted = arguments
    for extra in wanted or EXTRAS:
        folder = Path(tempfile.mkdtemp(prefix="mechxai-smoke-"))
        start = time.perf_counter()
        try:
            installed = plain(folder, Path(wheel).resolve(), extra)
            ready = time.perf_counter()
            said = EXTRAS[extra](installed)
            took = f"installed in {ready - start:.0f} s, checked in {time.perf_counter() - ready:.0f} s"
            _console.print(f"{extra}: {said or 'works'} ({took})")
        finally:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
