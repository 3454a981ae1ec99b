"""Edge pruning: gates by hand, the gradient against slopes, circuits against known circuits."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import mechxai as mx
from mechxai.core.errors import ConfigError, ModelSupportError
from mechxai.methods.circuits._lib.circuit_runs import CircuitRuns
from mechxai.methods.circuits._lib.hard_concrete import deterministic_gates, open_probability, sampled_gates
from mechxai.methods.circuits._lib.prepared_graph import prepare_graph
from mechxai.methods.circuits._lib.references import reference
from tests.conftest import FOLDED


def test_gates_by_hand():
    odds = torch.tensor([-20.0, 0.0, 20.0], dtype=torch.float64)
    assert deterministic_gates(odds).tolist() == pytest.approx([0, 0.5, 1])
    shift = 2 / 3 * math.log(0.1 / 1.1)
    assert float(open_probability(odds)[1]) == pytest.approx(1 / (1 + math.exp(shift)))
    many = sampled_gates(torch.full((200_000,), 0.3), torch.Generator().manual_seed(0))
    share = float(open_probability(torch.tensor(0.3)))
    assert float((many > 0).double().mean()) == pytest.approx(share, abs=0.005)
    assert 0.05 < float((many == 1).double().mean()) < 0.5
    assert float(many.min()) == 0
    assert float(many.max()) == 1


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_gradients_of_shares_are_slopes(model_of, pairs, kind, backend, processing):
    model = model_of(kind, backend, processing, "float64")
    batch = pairs(model, n=2, lengths=[9, 7], first=3)
    prepared = prepare_graph(model, batch, "logit_diff")
    blocks = prepared.blocks
    runs = CircuitRuns(prepared, reference(prepared, "corrupted", seed=0))
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand(1, *blocks.graph.reads.shape, generator=generator, dtype=torch.float64)
    shares = (shares * blocks.graph.reads).requires_grad_()
    prompts = torch.arange(2)
    with torch.enable_grad():
        total = runs.differentiable(shares, prompts).sum()
        (gradient,) = torch.autograd.grad(total, shares)
    places = blocks.graph.reads.nonzero()
    for row, writer in places[torch.randperm(len(places), generator=generator)[:5]].tolist():
        moved = shares.detach().clone()
        moved[0, row, writer] += 1e-5
        slope = float(runs.differentiable(moved, prompts).sum() - total) / 1e-5
        assert float(gradient[0, row, writer]) == pytest.approx(slope, abs=2e-4, rel=2e-3)
    assert not any(parameter.grad is not None for parameter in model.inner.parameters())


@pytest.mark.parametrize(("name", "away"), [("zoo/handmade-ioi", "zero"), ("zoo/handmade-induction", "corrupted")])
def test_known_edges_are_kept(name, away):
    model = mx.load(name, device="cpu")
    if name == "zoo/handmade-ioi":
        batch, truth = mx.tasks.ioi(model, n=16), model.card["truth"]["edges"]
    else:
        one, other = (mx.tasks.induction(model, n=16, seed=seed) for seed in (0, 1000))
        batch = mx.ContrastBatch.from_tokens(one.clean, other.clean, one.answers, other.answers)
        truth = model.card["truth"]["edges"]
    known = {(edge["src"], edge["dest"]) for edge in truth}
    result = mx.EdgePruning(keep=0.06, steps=150, reference=away)(model, batch)
    data = result.data
    true = np.array([ends in known for ends in zip(data["src"].values, data["dest"].values, strict=True)])
    assert roc_auc_score(true, data["value"]) >= 0.9
    assert not data["kept"].values[~true].sum() > 0.06 * len(true)
    assert float(data["loss"][:10].mean()) > float(data["loss"][-10:].median())
    assert float(data["open"][-1]) < 0.15
    assert result.info.cost["backward_passes"] == 2 * 150 * 16
    again = mx.EdgePruning(keep=0.06, steps=150, reference=away)(model, batch).data
    np.testing.assert_array_equal(again["value"], data["value"])


def test_refused(model_of, pairs):
    for settings, problem in (
        ({"keep": 0.0}, r"keep is 0\.0: it must be above 0 and below 1"),
        ({"keep": 1.0}, r"keep is 1\.0: it must be above 0 and below 1"),
        ({"steps": 0}, "steps is 0: it must be at least 1"),
        ({"lr": 0.0}, r"lr is 0\.0: it must be above 0"),
        ({"batch_size": 0}, "batch_size is 0: it must be at least 1"),
    ):
        with pytest.raises(ConfigError, match=problem):
            mx.EdgePruning(**settings)
    with pytest.raises(ConfigError, match="resample"):
        mx.EdgePruning(reference="sample")
    bert = model_of("bert")
    with pytest.raises(ModelSupportError, match="attention is not causal"):
        mx.EdgePruning()(bert, pairs(bert))
