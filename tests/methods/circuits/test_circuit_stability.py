"""Circuit stability: identical prompts, resampled means against repeated runs, frequencies by hand."""

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ConfigError, ModelSupportError
from mechxai.methods.circuits.circuit_stability import _Scorer


def test_identical_prompts_give_identical_circuits(model_of, pairs):
    model = model_of("llama")
    one = pairs(model, n=1)
    batch = one.rows(torch.zeros(6, dtype=torch.long))
    data = mx.CircuitStability(draws=5, top=0.1)(model, batch).data
    assert set(np.unique(data["edge_frequency"])) <= {0.0, 1.0}
    for name in ("jaccard", "spearman", "halves_jaccard", "halves_spearman"):
        np.testing.assert_allclose(data[name], 1, atol=1e-6)
    np.testing.assert_allclose(data["score_low"], data["score_high"], atol=1e-6)


def test_resampled_means_equal_repeated_runs(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=5)
    method = mx.EdgeAttribution("eap")
    chosen = np.array([0, 3, 3, 4, 1])
    averaged, repeated = (_Scorer(method, 1, model, batch, execution=mx.Execution()) for _ in range(2))
    repeated._has_prompt_scores = False
    np.testing.assert_allclose(averaged.scores(chosen, 0), repeated.scores(chosen, 0), atol=1e-5)
    assert averaged.passes < 3 * len(batch) <= 3 * repeated.passes


def test_frequency_by_hand(model_of, pairs):
    model = model_of("gpt2")
    result = mx.CircuitStability(draws=20, top=0.05)(model, pairs(model, n=6))
    data = result.data
    n, k = data.sizes["edge"], int(0.05 * data.sizes["edge"])
    assert float(data["edge_frequency"].sum()) == pytest.approx(k)  # each draw chooses so many
    table = data["frequency"]
    for edge in np.argsort(-data["edge_frequency"].values)[:5]:
        src, dest = str(data["src"].values[edge]), str(data["dest"].values[edge])
        assert float(table.sel(reader=dest, writer=src)) == float(data["edge_frequency"][edge])
    assert float(np.nansum(table.values)) == pytest.approx(k)
    generator = np.random.default_rng(0)
    drawn = [[set(generator.permutation(n)[:k].tolist()) for _ in range(2)] for _ in range(300)]
    chance = np.mean([len(one & other) / len(one | other) for one, other in drawn])
    assert float(data["jaccard_chance"]) == pytest.approx(chance, abs=0.01)
    assert float(data["jaccard"].mean()) > 2 * float(data["jaccard_chance"])
    assert (data["score_low"] <= data["score"] + 1e-6).mean() > 0.9
    assert mx.plot(result).data, "the frequencies are drawn"


def test_seeds_are_taken_in_turn():
    model = mx.load("zoo/handmade-induction", device="cpu")
    batch = mx.tasks.induction(model, n=6)
    method = mx.EdgePruning(steps=4)
    one = mx.CircuitStability(method, draws=2, top=0.1)(model, batch).data
    two = mx.CircuitStability(method, draws=2, top=0.1, seeds=2)(model, batch).data
    np.testing.assert_array_equal(one["score"], two["score"])
    assert float(np.abs(one["score_high"] - two["score_high"]).max()) > 0


def test_refused(model_of, pairs):
    with pytest.raises(ConfigError, match="draws is 1: it must be at least 2"):
        mx.CircuitStability(draws=1)
    with pytest.raises(ConfigError, match="edge_patching has no seed"):
        mx.CircuitStability("edge_patching", seeds=2)
    with pytest.raises(ConfigError, match="4 or more"):
        mx.CircuitStability()(model_of("gpt2"), pairs(model_of("gpt2"), n=3))
    with pytest.raises(ModelSupportError, match="attention is not causal"):
        mx.CircuitStability()(model_of("bert"), pairs(model_of("bert"), n=4))
