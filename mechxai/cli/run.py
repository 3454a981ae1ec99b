"""``mechxai run``: hydra composes the configuration and runs one job, or every job of a sweep."""

import gc
import shlex
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from rich.console import Console

from mechxai._resources import configs_dir
from mechxai.cli import console
from mechxai.cli.guarded_job import guarded
from mechxai.cli.sweep_end import end
from mechxai.core.files import make_writable_folder
from mechxai.figures.browser import one_browser
from mechxai.runs.locks import exclusive_lock
from mechxai.sweeps.overrides import check_overrides, override_arguments
from mechxai.sweeps.ray_settings import for_ray
from mechxai.sweeps.sweeper import in_place_of_basic
from mechxai.sweeps.user_configs import UserConfigs, quoted, user_configs
from mechxai.sweeps.watch import Watch, sweep_hash

_OBJECTS = 100_000
_TOLD = ("--help", "-h", "--hydra-help", "--version")  # hydra answers these itself
_SHOWN = ("--cfg", "-c", "--info", "-i")  # and shows the configuration for these, with nothing run


def run(arguments: Sequence[str]) -> int:
    """``mechxai run``: hydra composes the configuration and runs one job, or every job of a sweep."""
    with _seldom_collecting(), _asked_to_end():
        return _run(arguments)


@contextmanager
def _asked_to_end() -> Generator[None]:
    """``kill`` and a scheduler's end of time are told and summed up as Ctrl-C is, where signals can be heard."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


@contextmanager
def _seldom_collecting() -> Generator[None]:
    """Garbage is looked for after 100,000 new objects, not after 700.

    Importing torch, transformers and TransformerLens makes 880,000 that stay, and looking through them again and again
    took a fifth of the time to the first number.
    """
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _run(arguments: Sequence[str]) -> int:
    if any(flag in arguments for flag in _TOLD):
        return _hydra(arguments)
    folder = check_overrides(arguments)
    if folder is None or any(flag in arguments for flag in _SHOWN):
        return _hydra(arguments)
    identity = (user_configs(arguments) or UserConfigs()).identity
    return _sweep(arguments, folder / sweep_hash([*override_arguments(arguments), *identity]))


def _sweep(arguments: Sequence[str], folder: Path) -> int:
    """All jobs of a sweep; what was finished before is found, what failed is told."""
    make_writable_folder(folder.parents[2], setting=f"output={folder.parents[2]}")
    own = override_arguments(arguments)
    flags = [argument for argument in arguments if argument not in own]  # hydra takes none between overrides
    with exclusive_lock(folder, folder.parents[2], console.show):
        with Watch(folder, console.show), one_browser():
            code = _hydra([*flags, *own, *for_ray(own), f"hydra.sweep.dir={quoted(folder)}"])
        ended = end(folder, shlex.join(["mechxai", "run", *arguments]))
    return code if code == console.INTERRUPTED else ended or code


def _hydra(arguments: Sequence[str]) -> int:
    GlobalHydra.instance().clear()
    sys.argv = ["mechxai run", *arguments]
    try:
        with in_place_of_basic():
            hydra.main(version_base="1.3", config_path=str(configs_dir()), config_name="run")(guarded)()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; what is finished is kept: run the same command to go on")
        return console.INTERRUPTED
    return 0
