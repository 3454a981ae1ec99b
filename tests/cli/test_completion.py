"""What a shell offers behind TAB: the configuration's own names, quickly, in each shell that is installed."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import fields

import pytest

from mechxai.cli import main
from mechxai.cli.completion import candidates
from mechxai.core.method import METHODS
from mechxai.methods import registry
from mechxai.sweeps.config_files import choices_of, groups, settings
from mechxai.tasks import TASKS

COMMANDS = ("run", "runs", "methods", "explore")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ru", ["run", "runs"]),
        ("run experiment=ioi_p", ["experiment=ioi_patching"]),
        ("run model=zoo/hand", ["model=zoo/handmade-induction", "model=zoo/handmade-ioi"]),
        ("run -m model=zoo/ioi,zoo/pl", ["model=zoo/ioi,zoo/planted-ioi"]),
        ("run tracker=", ["tracker=none", "tracker=wandb"]),
        ("run hydra/launcher=sub", ["hydra/launcher=submitit_local", "hydra/launcher=submitit_slurm"]),
        ("run method.s", ["method.site="]),
        ("run method=linear_probes method.prob", ["method.probe="]),
        ("run method.direction=", ["method.direction=denoise", "method.direction=noise"]),
        ("run method.site=resid_pre,mlp_o", ["method.site=resid_pre,mlp_out"]),
        ("run model=gpt2 model.proc", ["model.processing="]),
        ("run experiment=ioi_patching also.z.o", ["also.z.over="]),
        ("run experiment=ioi_patching also.roles.cop", ["also.roles.copying="]),
        ("run plan=", ["plan=true", "plan=false"]),
        ("run engine=w", ["engine=wave"]),
        ("run --cfg ", ["job", "hydra", "all"]),
        ("run --mul", ["--multirun"]),
        ("methods lin", ["linear_probes"]),
        ("tasks io", ["ioi"]),
        ("runs c", ["compare", "clean"]),
        ("explore model=zoo/hand", ["model=zoo/handmade-induction", "model=zoo/handmade-ioi"]),
        ("run method=no_such method.", []),
        ("no_such ", []),
    ],
)
def test_candidates(line, expected):
    assert candidates(line.split(" "), COMMANDS) == expected


def test_a_key_begins_with_its_group_or_place():
    found = candidates(["run", "experiment=ioi_patching", ""], COMMANDS)
    assert {"experiment=", "model=", "hydra/launcher=", "seed=", "method.", "also.roles."} <= set(found)
    assert "defaults=" not in found
    assert groups()[:4] == ["model", "task", "metric", "method"]


def test_files_agree_with_the_registry():
    assert set(choices_of("method")) == {card.name for card in registry.cards()}
    assert set(choices_of("task")) == {name.removeprefix("from_") for name in TASKS}
    own = settings("method", "activation_patching")
    assert set(own) == {one.name for one in fields(METHODS["activation_patching"])}


def test_candidates_come_quickly():
    command = [sys.executable, "-m", "mechxai.cli", "completion", "candidates", "--", "run", "model=zoo/i"]
    took = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        took.append(time.perf_counter() - start)
        assert done.stdout.split() == ["model=zoo/induction", "model=zoo/interchange-ioi", "model=zoo/ioi"]
    assert min(took) < 1.0  # 0.2 s on a quiet machine
    loaded = "import sys, mechxai.cli.main; print([m for m in ('torch', 'numpy', 'hydra', 'yaml') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.fixture
def path(tmp_path):
    """With `mechxai` on it."""
    command = tmp_path / "bin" / "mechxai"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m mechxai.cli "$@"\n')
    command.chmod(0o755)
    return f"{command.parent}:{os.environ['PATH']}"


def in_shell(path, *command):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(
        command, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    return done.stdout.split("\n")


def test_bash(path):
    script = """
        eval "$(mechxai completion bash)"
        for COMP_LINE in 'mechxai run model=zoo/i' 'mechxai run method.d' 'mechxai methods lin' 'mechxai runs '; do
          COMP_POINT=${#COMP_LINE}; _mechxai; echo "${COMPREPLY[*]}"
        done; complete -p mechxai"""
    shown = in_shell(path, "bash", "--norc", "-c", script)
    assert shown[:2] == ["zoo/induction zoo/interchange-ioi zoo/ioi", "method.direction="], "bash splits words at ="
    assert shown[2:4] == ["linear_probes", "list show compare merge clean"]
    assert shown[4] == "complete -o default -F _mechxai mechxai"


def test_zsh(path):
    # compadd works in a completion widget alone; here it prints what it is given
    script = """
        compdef() { print -r -- "$@" }
        compadd() { print -r -- "$@" }
        eval "$(mechxai completion zsh)"
        words=(mechxai run model=zoo/i); CURRENT=3; _mechxai
        words=(mechxai run method.d); _mechxai"""
    shown = in_shell(path, "zsh", "-f", "-c", script)
    assert shown[0] == "_mechxai mechxai"
    assert shown[1] == "-Q -- model=zoo/induction model=zoo/interchange-ioi model=zoo/ioi"
    assert shown[2] == "-Q -S  -- method.direction="


def test_fish(path):
    script = (
        'mechxai completion fish | source; complete -C "mechxai run model=zoo/i"; complete -C "mechxai methods lin"'
    )
    shown = in_shell(path, "fish", "--no-config", "-c", script)
    assert shown[:4] == ["model=zoo/induction", "model=zoo/interchange-ioi", "model=zoo/ioi", "linear_probes"]


def test_another_shell_is_refused(capsys):
    assert main(["completion", "basch"]) == 2
    assert "Did you mean 'bash'" in capsys.readouterr().err


def test_a_flag_for_help_on_the_line_is_a_word_like_others(capsys):
    assert main(["completion", "candidates", "--", "run", "--help"]) == 0
    assert capsys.readouterr().out.split() == ["--help"]
