"""Edge pruning: its gates by hand, its gradient against slopes, its circuits against ones that are known."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import mechxai as mx
from mechxai.core.errors import ConfigError, ModelSupportError
from mechxai.core.metric import as_metric
from mechxai.methods.circuits._lib.circuit_runs import CircuitRuns
from mechxai.methods.circuits._lib.hard_concrete import drawn, open_share, settled
from mechxai.methods.circuits._lib.references import reference
from mechxai.model.graph.writes import graph_blocks
from tests.conftest import FOLDED


def test_gates_by_hand():
    odds = torch.tensor([-20.0, 0.0, 20.0], dtype=torch.float64)
    assert settled(odds).tolist() == pytest.approx([0, 0.5, 1])
    shift = 2 / 3 * math.log(0.1 / 1.1)
    assert float(open_share(odds)[1]) == pytest.approx(1 / (1 + math.exp(shift)))
    many = drawn(torch.full((200_000,), 0.3), torch.Generator().manual_seed(0))
    share = float(open_share(torch.tensor(0.3)))
    assert float((many > 0).double().mean()) == pytest.approx(share, abs=0.005)
    assert 0.05 < float((many == 1).double().mean()) < 0.5
    assert float(many.min()) == 0
    assert float(many.max()) == 1


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_gradients_of_shares_are_slopes(model_of, pairs, kind, backend, processing):
    model = model_of(kind, backend, processing, "float64")
    batch = pairs(model, n=2, lengths=[9, 7], first=3)
    blocks, metric = graph_blocks(model), as_metric("logit_diff")
    runs = CircuitRuns(model, blocks, batch, metric, reference(model, blocks, batch, kind="corrupted", seed=0))
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand(1, *blocks.graph.reads.shape, generator=generator, dtype=torch.float64)
    shares = (shares * blocks.graph.reads).requires_grad_()
    everyone = torch.arange(2)
    with torch.enable_grad():
        total = runs.differentiable(shares, everyone).sum()
        (gradient,) = torch.autograd.grad(total, shares)
    places = blocks.graph.reads.nonzero()
    for row, writer in places[torch.randperm(len(places), generator=generator)[:5]].tolist():
        moved = shares.detach().clone()
        moved[0, row, writer] += 1e-5
        slope = float(runs.differentiable(moved, everyone).sum() - total) / 1e-5
        assert float(gradient[0, row, writer]) == pytest.approx(slope, abs=2e-4, rel=2e-3)
    assert not any(parameter.grad is not None for parameter in model.inner.parameters())


@pytest.mark.parametrize(("name", "away"), [("zoo/handmade-ioi", "zero"), ("zoo/handmade-induction", "corrupted")])
def test_true_edges_are_kept(name, away):
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
    for settings in ({"keep": 0.0}, {"keep": 1.0}, {"steps": 0}, {"lr": 0.0}, {"batch_size": 0}):
        with pytest.raises(ConfigError, match="keep between 0 and 1"):
            mx.EdgePruning(**settings)
    with pytest.raises(ConfigError, match="resample"):
        mx.EdgePruning(reference="sample")
    bert = model_of("bert")
    with pytest.raises(ModelSupportError, match="causal pre-norm blocks"):
        mx.EdgePruning()(bert, pairs(bert))
