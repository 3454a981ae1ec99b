"""The self-check samples every kind of edit and prompt, and states the measured difference between levels."""

import dataclasses

import pytest
import torch

import mechxai as mx
from mechxai.core.metric import as_metric
from mechxai.core.site import Site
from mechxai.engine import self_check as module
from mechxai.engine.plan import plan
from mechxai.engine.self_check import _prompts, _sample_cells, self_check
from mechxai.engine.sweep import Sweep


def sweep_of(model, batch, cells):
    return Sweep(batch, "clean", cells, as_metric("logit_diff"))


def test_every_kind_of_edit_is_sampled(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=2)
    common = [
        (mx.Intervention(Site("z", 0, head=head, pos=pos), mx.ZeroAblate()),) for head in range(4) for pos in range(9)
    ]
    rare = [
        (mx.Intervention(Site("z", 1), mx.ZeroAblate()),),
        (mx.Intervention(Site("mlp_out", 1), mx.AddNoise(0.1)),),
        (mx.Intervention(Site("attn_scores", 1, head=0), mx.ZeroAblate()),),
        (
            mx.Intervention(Site("resid_pre", 1), mx.Steer(torch.ones(64))),
            mx.Intervention(Site("z", 2), mx.ZeroAblate()),
        ),
    ]
    sweep = sweep_of(model, batch, common + rare)
    planned = plan(model, sweep, mx.Execution())
    sampled = _sample_cells(sweep, planned, _prompts(sweep))
    assert set(range(len(common), len(common) + len(rare))) <= set(sampled)
    assert any(cell < len(common) for cell in sampled)
    assert len(sampled) <= 12


def test_long_short_and_early_answers_are_sampled(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=6, lengths=[7, 9, 5, 8, 8, 8])
    early = batch.answer_pos.clone()
    early[3], early[4] = 2, 4
    batch = dataclasses.replace(batch, answer_pos=early)
    chosen = _prompts(sweep_of(model, batch, [()]))
    assert {1, 2, 3} <= set(chosen)
    assert len(chosen) < 6


def test_the_noise_floor_is_the_measured_difference_from_the_oracle(model_of, pairs, monkeypatch):
    model = model_of("gpt2")
    sweep = sweep_of(
        model, pairs(model), [(mx.Intervention(Site("z", 1, head=head), mx.ZeroAblate()),) for head in range(4)]
    )
    planned = plan(model, sweep, mx.Execution())
    assert planned.level > 0
    values = module._values
    monkeypatch.setattr(module, "_values", lambda *args: values(*args) + (3e-6 if args[2] == planned.level else 0.0))
    module._checked.pop(model, None)
    checked = self_check(model, sweep, planned)
    module._checked.pop(model, None)
    assert checked.level == planned.level
    assert checked.noise_floor == pytest.approx(3e-6, abs=2e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_results_state_a_noise_floor_above_zero(model_of, pairs, dtype):
    model = model_of("gpt2", dtype=dtype)
    batch = pairs(model, n=3, lengths=[9, 5, 7])
    patching = mx.ActivationPatching("z", ("layer", "head"))
    auto, hooked = (patching(model, batch, execution=mx.Execution(engine=name)) for name in ("auto", "hooked"))
    floor = float(auto.data["noise_floor"])
    assert 0 < floor < (1e-4 if dtype == "float32" else 0.5)
    gap = float(abs(auto.data["per_example"] - hooked.data["per_example"]).max())
    assert gap <= 20 * floor
