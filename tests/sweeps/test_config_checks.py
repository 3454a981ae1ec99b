"""Overrides that do not fit are refused before torch is imported, and quickly."""

import os
import subprocess
import sys
import time

import pytest

from mechxai.core.errors import ConfigError, MechXAIError
from mechxai.sweeps.overrides import check_overrides, split_arguments
from mechxai.sweeps.run_settings import RunSettings

REFUSED = [
    (["task.n=foo"], "task.n='foo' is not a whole number"),
    (["method.site=zz"], "Unknown site 'zz'. Did you mean 'z'?"),
    (["method=linear_probes", "method.site=[z,zz]"], "Unknown site 'zz'"),
    (["method.direction=denois"], "method.direction='denois' is not allowed. Did you mean 'denoise'?"),
    (["method.over=[layer,poz]"], "method.over='poz' is not allowed. Did you mean 'pos'?"),
    (["method.layers=[a]"], "method.layers='a' is not a whole number"),
    (["task.order=abab"], "task.order='abab' is not allowed"),
    (["model.backend=bridges"], "model.backend='bridges' is not allowed. Did you mean 'bridge'?"),
    (["engine=wavy"], "engine='wavy' is not allowed. Did you mean 'wave'?"),
    (["seed=1.5"], "seed=1.5 is not a whole number"),
    (["plan=maybe"], "plan='maybe' is not true or false"),
    (["shard=4/4"], "shard='4/4' is not i/n"),
    (["processes=0"], "processes=0 is too small"),
    (["experiment=ioi_patching", "also.z.over=[heads]"], "also.z.over='heads' is not allowed. Did you mean 'head'?"),
    (["method=patching"], "Unknown method 'patching'. Did you mean"),
    (["metric=logit_dif"], "Unknown metric 'logit_dif'. Did you mean 'logit_diff'?"),
    (["task=ioii"], "Unknown task 'ioii'. Did you mean 'ioi'?"),
    (["mehtod=ablation"], "Unknown key 'mehtod'. Did you mean 'method'?"),
    (["-m", "task.n=foo,bar"], "task.n='foo' is not a whole number"),
    (["-m", "method.site=z,q", "method.direction=up"], "method.direction='up' is not allowed"),
]


@pytest.mark.parametrize(("arguments", "problem"), REFUSED)
def test_refused_with_the_value_and_the_nearest(arguments, problem):
    with pytest.raises(MechXAIError) as raised:
        check_overrides([*arguments, "tracker=none"])
    assert problem in str(raised.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["task.n=8", "method.site=z", "method.over=[layer,head]", "method.layers=[0,1]", "method.pos=[S2,-1]"],
        ["method.metric=logit", "model.dtype=bfloat16", "task.template=null", "seed=3"],
        ["method=faithfulness", "method.of=kernel_shap"],
        ["method=linear_probes", "task=pos_tags", "method.site=[resid_mid,resid_post]", "method.C=[1,0.1]"],
        ["shard=0/2", "tokens_per_wave=100"],
    ],
)
def test_what_fits_passes(arguments):
    assert check_overrides([*arguments, "tracker=none"]) is None


def test_a_sweep_with_one_value_that_fits_passes_since_only_its_job_fails():
    assert check_overrides(["-m", "task.n=4,foo", "tracker=none"]) is not None
    assert check_overrides(["-m", "method.site=zz,z", "tracker=none"]) is not None


def test_flags_come_before_overrides():
    assert split_arguments(["a=1", "--config-dir", "conf", "b=2", "-m"]) == (
        ["--config-dir", "conf", "-m"],
        ["a=1", "b=2"],
    )


def test_run_settings():
    assert RunSettings(shard="1/4").shard_numbers() == (1, 4)
    assert RunSettings(plugins=["a"]).plugins == ("a",)
    with pytest.raises(ConfigError, match="engine='wavy'"):
        RunSettings(engine="wavy")


def test_no_heavy_library_is_imported_and_the_answer_is_quick():
    code = (
        "import sys; from mechxai.cli import main; code = main(['run', 'task.n=foo']);"
        "print(code, [name for name in ('torch', 'xarray', 'pandas', 'transformers') if name in sys.modules])"
    )
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
        seconds.append(time.perf_counter() - start)
        assert done.stdout == "2 []\n"
    assert min(seconds) < 3


def test_one_method_is_shown_quickly_without_torch():
    code = (
        "import sys; from mechxai.cli import main; main(['methods', 'Saliency']);"
        "print([name for name in ('torch', 'numpy', 'hydra') if name in sys.modules])"
    )
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - start)
        assert done.stdout.splitlines()[-1] == "[]"
    assert min(seconds) < 1.5  # a second on an idle core
