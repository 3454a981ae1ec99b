"""Every kind of value that does not fit is refused before torch is imported; names stay inside the output folder."""

import os
import subprocess
import sys
import time

import pytest

from mechxai.cli import main
from mechxai.core.errors import ConfigError, MechXAIError
from mechxai.sweeps.job import companion_labels
from mechxai.sweeps.overrides import check_overrides
from mechxai.sweeps.run_settings import RunSettings

HUGE = "9" * 30
REFUSED = [
    ("method.layers=[0.5]", "method.layers=0.5 is not a whole number"),
    ("method.layers=[true]", "method.layers=True is not a whole number"),
    ("method.layers=[]", "Write method.layers=null"),
    ("method.layers=all", "method.layers='all' is not a whole number"),
    ("method.layers={a: 1}", "method.layers={'a': 1} is not a whole number"),
    ("method.layers=[[1]]", "method.layers=[1] is not"),
    ("method.heads=[nan]", "method.heads=nan is not a whole number"),
    ("method.pos=[1.5]", "method.pos=1.5 is not a whole number or text"),
    ("method.pos=[]", "method.pos=[] is empty"),
    ("method.over=[]", "method.over=[] is empty"),
    ("method.site=[z,q]", "method.site=['z', 'q'] is not text"),
    ("method.site=null", "method.site=None is not text"),
    ("method.direction=7", "method.direction=7 is not 'denoise' or 'noise'"),
    ("force=maybe", "force='maybe' is not true or false"),
    ("plan=7", "plan=7 is not true or false"),
    ("figure.png=3", "figure.png=3 is not true or false"),
    ("tokens_per_wave=10.5", "tokens_per_wave=10.5 is not a whole number"),
    ("tokens_per_wave=0", "one token at least"),
    ("tokens_per_wave=inf", "tokens_per_wave=inf is not a whole number"),
    (f"tokens_per_wave={HUGE}", "is too large"),
    (f"seed={HUGE}", "is too large"),
    ("seed=4294967296", "seed=4294967296 is out of range"),
    ("seed=-1", "seed=-1 is out of range"),
    ("seed=nan", "seed=nan is not a whole number"),
    (f"task.seed={HUGE}", "task.seed=" + HUGE),
    ("task.n=0", "task.n=0 is out of range. Allowed: 1 to 1000000"),
    ("task.n=100000000", "task.n=100000000 is out of range"),
    ("task.n=1e400", "task.n=inf is not a whole number"),
    ("processes=100000", "processes=100000 is too many"),
    ("output=''", "output='' names no folder"),
    ("output=", "output='' names no folder"),
    ("output=null", "output=None is not text"),
    (f"output={'x' * 300}", "is too long: 300 bytes"),
    (f"output={'/x' * 2000}", "is too long: 4000 bytes"),
    ("output=a\udce9b", "is not UTF-8"),
    ("model.name=a\x00b", "is not UTF-8"),
    ("output=${oc.env:NO_SUCH_VARIABLE}", "cannot be resolved"),
    ("name=null", "name=None is not text"),
    ("name=''", "is not the name of a folder inside output"),
    ("method=null", "Unknown method 'null'"),
    ("method=3", "Unknown method '3'"),
    ("method=[]", "Unknown method '[]'"),
    ("task={}", "Unknown task '{}'"),
    ("metric=[1]", "Unknown metric '[1]'"),
    ("~method", "method names nothing that can be built"),
    ("method._target_=5", "method names nothing that can be built"),
    ("then=hello", "Unknown key 'then'"),
    ("+then=hello", "Unknown key 'then'"),
    ("+method.layer=1", "Unknown key 'method.layer'. Did you mean 'method.layers'?"),
    ("+metric.x=1", "Unknown key 'metric.x'"),
    ("+tracker.x=1", "Unknown key 'tracker.x'"),
    ("also=hello", "also='hello' names no methods"),
    ("+also.x=3", "also.x names no method"),
    ("=5", "names no key"),
]


@pytest.mark.parametrize(("override", "problem"), REFUSED)
def test_refused_in_a_sentence(override, problem):
    with pytest.raises(MechXAIError) as raised:
        check_overrides([override, "tracker=none"])
    assert problem in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_number_is_finite(value):
    with pytest.raises(ConfigError, match="is not a finite number"):
        check_overrides(["method=edge_pruning", f"method.lr={value}", "tracker=none"])


@pytest.mark.parametrize(
    "value", ["a=b", "a#b", "/tmp/a[b]", "a(b)", "a{b}", "a,b", "/x/a=b,c", "'a", "a'b=c", "~/a", "/tmp/é"]
)
@pytest.mark.parametrize("key", ["output", "model.name"])
def test_the_message_shows_the_quoting_that_works(key, value, capsys):
    choice = [] if key == "output" else ["model=load"]
    assert main(["run", *choice, f"{key}={value}", "tracker=none"]) == 2
    said = capsys.readouterr().err
    written = said.split("\nMore")[0].rpartition("written " if "written " in said else "a text ")[2].removesuffix(".")
    shown = subprocess.run(["bash", "-c", f"printf %s {written}"], capture_output=True, text=True, check=True).stdout
    assert check_overrides([*choice, shown, "tracker=none"]) is None
    parsed = subprocess.run(
        [sys.executable, "-m", "mechxai.cli", "run", *choice, shown, "tracker=none", "--cfg", "job"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    ).stdout
    assert value.replace("'", "''") in parsed or value in parsed


@pytest.mark.parametrize("value", ["a%b", "a@b", "a b", "a:b", "a-b"])
def test_a_path_that_needs_no_quoting_passes(value):
    assert check_overrides([f"output={value}", "tracker=none"]) is None


@pytest.mark.parametrize(
    "name",
    ["../../x", "/tmp/x", "a/../../b", "..", ".", "a/..", "~/x", "C:/x", "'a\\\\..\\\\b'", "a//b", "' '", "x" * 300],
)
@pytest.mark.parametrize("multirun", [False, True])
def test_names_stay_inside_the_output_folder(tmp_path, monkeypatch, name, multirun):
    here = tmp_path / "a" / "b"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    arguments = ["-m", f"name={name},fine", "seed=1,2"] if multirun else [f"name={name}"]
    with pytest.raises(ConfigError, match="name="):
        check_overrides([*arguments, "tracker=none"])
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "a", here]


def test_names_of_every_origin_are_checked():
    for name in ("../x", "a\x1b[31mb", "a\nb"):
        with pytest.raises(ConfigError):
            RunSettings(name=name)
        with pytest.raises(ConfigError):
            companion_labels({name: {"_target_": "mechxai.x"}})
    with pytest.raises(ConfigError):
        companion_labels({"a/b": {"_target_": "mechxai.x"}})
    assert RunSettings(name="first-try/part_2.b", output="/anywhere").name == "first-try/part_2.b"


def test_an_added_key_that_another_value_refers_to_passes():
    assert check_overrides(["+size=3", "task.n=${size}", "tracker=none"]) is None
    with pytest.raises(ConfigError, match=r"task.n='x' is not a whole number"):
        check_overrides(["+size=x", "task.n=${size}", "tracker=none"])


@pytest.mark.parametrize("override", ["method.layers=[]", "method=null", "output=a=b", "name=../x", "output=\udce9"])
def test_the_command_answers_quickly_with_code_2_and_no_traceback(override, tmp_path):
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        command = [sys.executable, "-m", "mechxai.cli", "run", override, "tracker=none"]
        done = subprocess.run(command, capture_output=True, check=False, cwd=tmp_path, env=os.environ)
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 2
        assert b"Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) == 2
    assert min(seconds) < 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["task=jsonl", "task.path=3"], "task.path=3 is not text"),
        (["task=jsonl", f"task.path={'x' * 300}"], "task.path='xxxx"),
        (["model=load", f"model.name={'/y' * 3000}"], "is too long"),
        (["method=tuned_lens", f"method.lens={'x' * 300}"], "is too long"),
        (["task=prompts", "task.texts=[3]"], "task.texts=3 is not text"),
        (["task=prompts", "task.texts=[]"], "task.texts=[] is empty"),
        (["method=linear_probes", "method.C=[nan]"], "method.C=nan is not a finite number"),
        (["method=linear_probes", "method.C=[]"], "method.C=[] is empty"),
        (["method=smooth_grad", "method.noise=-inf"], "method.noise=-inf is not a finite number"),
        (["method.metric=logit_dif"], "Unknown metric 'logit_dif'. Did you mean 'logit_diff'?"),
        (["method.metric=[logit]"], "method.metric=['logit'] is not the name of a metric"),
        (["method.metric=5"], "method.metric=5 is not the name of a metric"),
        (["method.metric={a: 1}"], "is not the name of a metric"),
        (["plugins=[no_such_module]"], "There is no module 'no_such_module'"),
        (["plugins=[../x]"], "There is no module '../x'"),
    ],
)
def test_settings_of_what_is_built_are_refused_too(arguments, problem):
    with pytest.raises(ConfigError) as raised:
        check_overrides([*arguments, "tracker=none"])
    assert problem in str(raised.value)
