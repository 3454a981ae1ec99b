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

from mechxai._resources import configs_dir
from mechxai.cli.console import FAILED, INTERRUPTED, OK, error_stream, show
from mechxai.cli.guarded_job import guarded_job
from mechxai.cli.sweep_end import show_sweep_end
from mechxai.core.files import make_writable_folder
from mechxai.figures.browser import shared_browser
from mechxai.runs.locks import exclusive_lock
from mechxai.sweeps.overrides import check_overrides, override_arguments, split_arguments
from mechxai.sweeps.ray_settings import ray_overrides
from mechxai.sweeps.sweeper import recording_sweeper
from mechxai.sweeps.user_configs import UserConfigs, quoted, user_configs
from mechxai.sweeps.watch import Watch, sweep_hash

HELP = ""  # hydra answers --help, with every choice
_NEW_OBJECTS = 100_000
_ANSWERED_BY_HYDRA = ("--help", "-h", "--hydra-help", "--version")
_SHOW_CONFIG = ("--cfg", "-c", "--info", "-i")  # hydra shows the configuration and runs nothing


def main(arguments: Sequence[str]) -> int:
    """``mechxai run ...``; returns the exit code."""
    with _rare_garbage_collection(), _sigterm_as_interrupt():
        return _run(arguments)


@contextmanager
def _sigterm_as_interrupt() -> Generator[None]:
    """``kill``, or a scheduler's end of time, ends a run as Ctrl-C does."""
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
def _rare_garbage_collection() -> Generator[None]:
    """Garbage collection after 100,000 new objects instead of 700.

    Importing torch, transformers and TransformerLens makes 880,000 objects that stay; collecting again and again took
    a fifth of the time to the first number.
    """
    before = gc.get_threshold()
    gc.set_threshold(_NEW_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _run(arguments: Sequence[str]) -> int:
    if any(flag in arguments for flag in _ANSWERED_BY_HYDRA):
        return _run_hydra(arguments)
    folder = check_overrides(arguments)
    if folder is None or any(flag in arguments for flag in _SHOW_CONFIG):
        return _run_hydra(arguments)
    identity = (user_configs(arguments) or UserConfigs()).identity
    return _run_sweep(arguments, folder / sweep_hash([*override_arguments(arguments), *identity]))


def _run_sweep(arguments: Sequence[str], folder: Path) -> int:
    """Runs all jobs of a sweep; finished runs are reused, failures are listed at the end."""
    output = folder.parents[2]
    make_writable_folder(output, setting=f"output={output}")
    flags, overrides = split_arguments(arguments)
    with exclusive_lock(folder, output, show):
        with Watch(folder, show), shared_browser():
            code = _run_hydra([*flags, *overrides, *ray_overrides(overrides), f"hydra.sweep.dir={quoted(folder)}"])
        end_code = show_sweep_end(folder, shlex.join(["mechxai", "run", *arguments]))
    return code if code == INTERRUPTED else end_code or code


def _run_hydra(arguments: Sequence[str]) -> int:
    GlobalHydra.instance().clear()
    flags, overrides = split_arguments(arguments)
    before, sys.argv = sys.argv, ["mechxai run", *flags, *overrides]  # Hydra reads them there
    try:
        with recording_sweeper():
            hydra.main(version_base="1.3", config_path=str(configs_dir()), config_name="run")(guarded_job)()
    except SystemExit as exited:
        return exited.code if isinstance(exited.code, int) else FAILED
    except KeyboardInterrupt:
        error_stream().print("interrupted; finished work is kept: run the same command to go on")
        return INTERRUPTED
    finally:
        sys.argv = before
    return OK
