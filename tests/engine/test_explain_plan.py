"""The explained plan: what it announces before a run is what the run does."""

from dataclasses import dataclass

import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ConfigError
from mechxai.core.method import Method, MethodCard
from mechxai.engine import explain_plan as explain
from mechxai.engine.execution import LEVEL_NAMES
from mechxai.model.dense.check import equivalence_check

SWEEP = mx.ActivationPatching("z", ("layer", "pos", "head"))


def test_what_is_told_is_what_happens(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=3, lengths=[9, 6, 7])
    told = mx.explain_plan(SWEEP, model, batch)
    cost = SWEEP(model, batch).info.cost
    assert told.plan.n_cells * told.plan.n_prompts == cost["cells"]
    assert told.plan.noops == cost["cells_without_effect"] > 0
    assert told.plan.n_waves == cost["waves"]
    assert told.plan.work / (told.plan.width * told.plan.n_layers) == cost["forward_passes"]
    text = str(told)
    for part in ("108 on 3 prompts", "not computed", "4 (fused)", "GFLOP", "MiB", "expected time"):
        assert part in text, part


def test_no_prompt_is_run(model_of, pairs, monkeypatch):
    model = model_of("llama")
    batch = pairs(model)
    equivalence_check(model.backend)  # of this model, once

    def running(*_, **__):
        raise AssertionError("a prompt was run")

    for name in ("run", "record", "resume"):
        monkeypatch.setattr(type(model.backend), name, running)
    for method in (SWEEP, mx.Ablation("z", edit="mean")):
        assert mx.explain_plan(method, model, batch).seconds > 0


@pytest.mark.parametrize("engine", LEVEL_NAMES)
def test_every_level_is_told(model_of, pairs, engine):
    model = model_of("gpt2")
    told = mx.explain_plan(SWEEP, model, pairs(model), execution=mx.Execution(engine))
    assert LEVEL_NAMES[told.plan.level] == engine
    assert told.seconds > 0
    assert told.one_per_cell_seconds > 0


def test_higher_levels_do_less(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=4)
    flops = [mx.explain_plan(SWEEP, model, batch, execution=mx.Execution(e)).plan.flops for e in LEVEL_NAMES]
    assert flops[0] > flops[1] > flops[2] == flops[3] >= flops[4]


def test_several_sweeps_are_told_together(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=2)
    subject = torch.tensor([3, 3])
    batch = mx.ContrastBatch.from_tokens(
        batch.clean, batch.corrupted, batch.answers, batch.wrong, roles={"SUBJECT": subject}
    )
    for method, n_sweeps in ((mx.HeadRoles(), 2), (mx.CausalTracing(n_noise=3), 3)):
        told, cost = mx.explain_plan(method, model, batch), method(model, batch).info.cost
        assert told.plan.n_cells * told.plan.n_prompts == cost["cells"]
        assert told.plan.noops == cost["cells_without_effect"]
        assert told.plan.n_waves == cost["waves"]
        assert told.plan.work / (told.plan.width * told.plan.n_layers) == cost["forward_passes"]
        assert told.plan.n_cells % n_sweeps == 0
    assert mx.explain_plan(mx.HeadRoles(), model, batch).title.startswith("head_roles on ")


def test_a_method_without_a_sweep_says_so(model_of, pairs):
    @dataclass(frozen=True)
    class Other(Method):
        card = MethodCard("other", "lens", "?", "none", "here")

        def __call__(self, model, batch, *, execution=None):
            raise NotImplementedError

    model = model_of("gpt2")
    with pytest.raises(ConfigError, match=r"other has no plan: it runs no sweep"):
        mx.explain_plan(Other(), model, pairs(model))


def test_durations_are_readable():
    shown = [explain._duration(seconds) for seconds in (0.0123, 3.21, 600.0, 9000.0)]
    assert shown == ["12 ms", "3.2 s", "10.0 min", "2.5 h"]
