"""Every config composes, every method's and task's keys are its fields, and every experiment runs."""

import inspect
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import mechxai as mx
from mechxai._resources import configs_dir
from mechxai.cli import main
from mechxai.sweeps.allowed_targets import check_targets, make

GROUPS = ("model", "task", "metric", "method", "tracker", "figure", "experiment", "sweep", "debug")
LONG = (
    "attribution",
    "circuit_benchmark",
    "circuit_story",
    "compare_attributions",
    "exercise_shap_rephrasings",
    "cot_faithfulness",
    "edge_attribution",
)


def choices(group: str) -> list[str]:
    folder = configs_dir() / group
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


def compose(*overrides: str):
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(configs_dir()), version_base="1.3"):
        return hydra.compose("run", overrides=list(overrides))


@pytest.mark.parametrize(("group", "choice"), [(group, choice) for group in GROUPS for choice in choices(group)])
def test_every_choice_composes(group, choice):
    config = compose(f"{group}={choice}")
    check_targets(OmegaConf.to_container(config, resolve=False))


@pytest.mark.parametrize("choice", choices("method"))
def test_method_keys_are_the_fields_of_the_method(choice):
    config = compose(f"method={choice}").method
    kind = hydra.utils.get_class(config._target_)
    fields = set(inspect.signature(kind).parameters)
    assert set(config) - {"_target_"} == fields
    defaults = {name: value.default for name, value in inspect.signature(kind).parameters.items()}
    given = dict(config) | ({"metric": "logit_diff"} if "metric" in config else {})
    made = make(OmegaConf.to_container(OmegaConf.create(given), resolve=True))
    for name, default in defaults.items():
        if name not in ("metric", "seed"):
            assert getattr(made, name) == default, f"{choice}: {name} differs between config and class"


@pytest.mark.parametrize("choice", [choice for choice in choices("task") if "jsonl" not in choice])
def test_task_keys_are_the_arguments_of_the_task(choice):
    config = compose(f"task={choice}").task
    task = getattr(mx.tasks, choice)
    assert set(config) - {"_target_", "_partial_"} == set(inspect.signature(task).parameters) - {"model"}


def experiments():
    """Those that take minutes however small they are made run with the slow tests."""
    return [pytest.param(one, marks=[pytest.mark.slow] if one in LONG else []) for one in choices("experiment")]


@pytest.mark.parametrize("choice", experiments())
def test_every_experiment_runs(choice, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    smaller = ["method.n_noise=1"] if "tracing" in choice else ["task.n=24"] if choice.startswith("probe") else []
    if choice == "self_consistency":
        smaller = ["method.samples=4"]
    if choice.startswith("tuned_lens"):
        smaller = ["method.steps=10", "method.tokens_per_step=256"]
    if choice == "circuit_benchmark":
        smaller = ["method.methods=[eap,acdc]", "method.references=[zero]", "method.beside=[zoo/handmade-induction]"]
    assert main(["run", f"experiment={choice}", "debug=tiny", *smaller]) == 0
    assert list(Path(tmp_path).rglob("report.html"))
