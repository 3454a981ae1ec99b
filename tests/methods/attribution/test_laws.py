"""Laws of every attribution method: on every model, in padded batches, on a linear model, and after an interruption."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.core.batch import ContrastBatch
from mechxai.engine import finished
from mechxai.engine.execution import Execution
from tests.conftest import MODELS
from tests.methods.attribution.cases import COMPLETE, EVERY, Linear, cut_to, hooks_of, logit_diff, named


@pytest.mark.parametrize(("kind", "backend", "processing"), MODELS)
def test_every_method_on_every_model(model_of, pairs, kind, backend, processing):
    model = model_of(kind, backend, processing)
    batch = pairs(model, n=2, width=7, lengths=[7, 5])
    before = hooks_of(model)
    for plain in EVERY:
        method = replace(plain, baseline="mean") if "baseline" in plain.settings() else plain
        result = method(model, batch)
        value = result.data["value"].values
        assert value.shape == (2, 7)
        assert np.isfinite(value[0]).all()
        assert np.isfinite(value[1, :5]).all()
        assert np.isnan(value[1, 5:]).all()
        assert result.data["target_score"].values == pytest.approx(logit_diff(model, batch), abs=2e-4)
        if isinstance(method, COMPLETE):
            change = result.data["target_score"] - result.data["baseline_score"]
            assert (abs(result.data["delta"]) <= 0.05 * abs(change) + 1e-4).all()
            assert np.nansum(value, 1) == pytest.approx((change + result.data["delta"]).values, abs=1e-9)
        else:
            assert np.isnan(result.data["delta"]).all()
    assert hooks_of(model) == before


@pytest.mark.parametrize("method", named((*EVERY, mx.ExactShapley(players="token"))))
def test_padded_batch_equals_singles(model_of, pairs, method):
    model = model_of("llama")
    batch = pairs(model, n=3, width=8, lengths=[8, 5, 6])
    together = method(model, batch)
    for row in range(3):
        alone = method(model, cut_to(batch, row))
        width = int(batch.lengths[row])
        if "seed" in method.settings() and row:
            continue  # each prompt of a batch has draws of its own
        assert together.data["value"].values[row, :width] == pytest.approx(alone.data["value"].values[0], abs=2e-5)


def test_a_masked_model_is_explained_at_its_mask(model_of):
    model = model_of("bert")
    batch = mx.tasks.prompts(model, texts=["The capital of [MASK] is Paris.", "The keys are [MASK]."])
    for method in EVERY:
        result = method(model, batch)
        token, value = result.data["token"].values, result.data["value"].values
        assert np.isnan(value[np.isin(token, ["[CLS]", "[SEP]", "[MASK]", ""])]).all()
        assert np.isfinite(value[~np.isin(token, ["[CLS]", "[SEP]", "[MASK]", ""])]).all()
    with_mask = mx.Occlusion(special=True, baseline="mask")(model, batch).data
    assert np.isfinite(with_mask["value"].values[0]).all()


def test_hooks_are_gone_after_an_exception(model_of, pairs, monkeypatch):
    model = model_of("gpt2")
    before = hooks_of(model)
    monkeypatch.setattr("mechxai.methods.attribution._lib.adapters.hooked.metric_values", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        mx.Saliency()(model, pairs(model))
    assert hooks_of(model) == before
    assert all(parameter.requires_grad for parameter in model.inner.parameters())


@pytest.mark.parametrize("metric", ["logprob", "logprob_diff"])
def test_a_sequence_is_scored_by_teacher_forcing(model_of, metric):
    model = model_of("gpt2")
    batch = mx.ContrastBatch.from_prompts(
        model, clean=["The capital of France is"] * 2, corrupted=["The capital of France is"] * 2,
        answers=[" Paris.", " the park"], wrong=[" in the store.", " Mary gave"],
    )  # fmt: skip
    assert batch.answers.shape[2] > 1

    def logprob(row, answer):
        prompt = batch.clean[row].tolist()
        ids = [token for token in answer[row, 0].tolist() if token >= 0]
        logits = model.logits(torch.tensor([prompt + ids]))[0].double().log_softmax(-1)
        return sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(ids))

    sides = [[logprob(row, one) for row in range(2)] for one in (batch.answers, batch.wrong)]
    expected = np.array(sides[0]) - (np.array(sides[1]) if metric == "logprob_diff" else 0)
    for method in (mx.IntegratedGradients(metric=metric), mx.KernelShap(metric=metric, n_samples=80)):
        result = method(model, batch)
        assert result.data["target_score"].values == pytest.approx(expected, abs=1e-4)
        assert abs(result.data["delta"].values).max() < 0.1


@pytest.fixture
def linear():
    draw = torch.Generator().manual_seed(0)
    table, weights = (torch.randn(*shape, generator=draw) for shape in ((10, 3), (16, 3)))
    batch = ContrastBatch.from_tokens(
        torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 5, 3, 4]]), torch.tensor([1]), torch.tensor([2])
    )
    return Linear(table, weights), batch


def test_closed_forms_on_a_linear_model(linear):
    model, batch = linear
    own, mean = model.table[batch.clean[0]], model.table.mean(0)
    products = (own * model.weights[:4]).sum(-1).numpy()
    shifted = ((own - mean) * model.weights[:4]).sum(-1).numpy()

    def value(method):
        return method(model, batch).data["value"].values[0]

    assert value(mx.GradientXInput()) == pytest.approx(products, abs=1e-5)
    assert value(mx.SmoothGrad(reduce="times_input", n_samples=3)) == pytest.approx(products, abs=1e-5)
    assert value(mx.Saliency()) == pytest.approx(model.weights[:4].norm(dim=-1).numpy(), abs=1e-5)
    assert value(mx.Saliency(reduce="sum")) == pytest.approx(model.weights[:4].sum(-1).numpy(), abs=1e-5)
    for method in (
        mx.IntegratedGradients(baseline="mean", n_steps=1),
        mx.Occlusion(baseline="mean"),
        mx.ExactShapley(baseline="mean", players="token"),
        mx.KernelShap(baseline="mean"),
        mx.PartitionShap(baseline="mean"),
    ):
        assert value(method) == pytest.approx(shifted, abs=1e-5), method.card.name
    assert value(mx.Lime(baseline="mean", alpha=0.0)) == pytest.approx(shifted, abs=1e-4)
    assert value(mx.AttentionScores()) == pytest.approx([0.25] * 4)
    assert value(mx.IntegratedGradients(baseline="counterfactual", n_steps=1))[[0, 2, 3]].tolist() == [0, 0, 0]


@pytest.mark.parametrize("method", named((mx.IntegratedGradients(), mx.KernelShap(n_samples=100), mx.SmoothGrad())))
def test_finished_prompts_are_not_explained_again(zoo, tmp_path, monkeypatch, method):
    batch = mx.tasks.ioi(zoo, n=3)
    execution = Execution(cells=Path(tmp_path))
    monkeypatch.setattr(finished, "_SAVE_EVERY", 0.0)  # a file per prompt
    whole = method(zoo, batch, execution=execution)
    gone = sorted(tmp_path.glob("*-000001.safetensors"))
    for path in gone:
        path.unlink()
    calls = []
    name = type(method).__name__
    inner = {"IntegratedGradients": "_converged_scores", "KernelShap": "_estimate", "SmoothGrad": "_mean_gradient"}[
        name
    ]
    original = getattr(type(method), inner)
    monkeypatch.setattr(type(method), inner, lambda *a: calls.append(1) or original(*a))
    again = method(zoo, batch, execution=execution)
    assert len(calls) == 1
    assert (again.data["value"].fillna(0) == whole.data["value"].fillna(0)).all()
    other = method(zoo, mx.tasks.ioi(zoo, n=3, seed=7), execution=execution)
    assert not (other.data["value"].fillna(0) == whole.data["value"].fillna(0)).all()
