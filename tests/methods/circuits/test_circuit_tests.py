"""Hypothesis tests of circuits: the statistics by hand, and the tests of a known circuit."""

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ConfigError
from mechxai.core.graph import Graph
from mechxai.methods.circuits._lib.edge_selection import pruned
from mechxai.methods.circuits._lib.hypotheses import exceedance, holm, independence_test, sign_test
from mechxai.methods.circuits.circuit_tests import _random_path


def test_sign_test_by_hand():
    share, p = sign_test(np.array([1.0, 1, 1, 0]), np.zeros(4))
    assert share == pytest.approx(0.875), "three above, one tie"
    assert p == pytest.approx(0.25), "three of three, two-sided"
    assert sign_test(np.ones(5), np.ones(5)) == (0.5, 1.0)
    assert sign_test(np.array([1.0, 1, 1, 0]), np.zeros(4), tie=1.0) == (0.5, 1.0)


def test_independence():
    generator = np.random.default_rng(0)
    one = generator.normal(size=60)
    depends, p = independence_test(one, one**2 + 0.1 * generator.normal(size=60), draws=200, seed=0)
    assert p < 0.02, "not even linear"
    free, q = independence_test(one, generator.normal(size=60), draws=200, seed=0)
    assert q > 0.05
    assert depends > free


def test_exceedance_and_holm_by_hand():
    assert exceedance(2.0, np.array([1.0, 2.0, 3.0])) == pytest.approx(3 / 4)
    assert exceedance(9.0, np.array([1.0, 2.0, 3.0])) == pytest.approx(1 / 4)
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.9, 0.8])), [1.0, 1.0])


@pytest.mark.parametrize("graph", [Graph(3, 4, 4, mlps=True, parallel=False), Graph(3, 4, 2, mlps=True, parallel=True)])
def test_random_paths_lead_from_the_embedding_to_the_logits(graph):
    generator = np.random.default_rng(0)
    lengths = set()
    for _ in range(50):
        path = _random_path(graph, generator)
        chosen = torch.zeros(1, len(graph.edges), dtype=torch.bool)
        chosen[0, path] = True
        assert torch.equal(pruned(graph, chosen), chosen), "all of it is of use"
        lengths.add(len(path))
    assert len(lengths) > 2


def test_the_known_circuit_passes():
    model = mx.load("zoo/handmade-ioi", device="cpu")
    batch = mx.tasks.ioi(model, n=16)
    result = mx.CircuitTests("edge_patching", fraction=0.027, draws=60)(model, batch)
    data = result.data
    p = dict(zip(data["test"].values, data["p"].values, strict=True))
    assert int(data["n_edges"]) == 5
    assert p["equivalence"] > 0.05
    assert p["sufficiency"] == pytest.approx(1 / 61), "no random circuit comes near"
    assert p["necessity"] == pytest.approx(1 / 61), "and no other edges are missed"
    needed = set(data["edge"].values[data["p_edge"].values <= 0.1])
    assert {"a2.h2 -> logits", "a1.h3 -> a2.h2.q", "embed -> a0.h1.q"} <= needed
    assert any("reference=corrupted" in note for note in result.info.notes)


def test_a_circuit_that_is_too_large_and_one_that_is_too_small():
    model = mx.load("zoo/handmade-ioi", device="cpu")
    batch = mx.tasks.ioi(model, n=16)
    large = mx.CircuitTests(fraction=0.2, draws=40)(model, batch).data
    assert float(large["statistic"].sel(test="minimality")) < 0.5
    assert float(large["p"].sel(test="minimality")) > 0.5
    ioi = mx.load("zoo/ioi", device="cpu")
    small = mx.CircuitTests(fraction=0.02, draws=20, most=5)(ioi, mx.tasks.ioi(ioi, n=24)).data
    assert float(small["p"].sel(test="equivalence")) < 0.05, "it scores below the model on every prompt"
    assert small.sizes["edge"] == 5


def test_refused():
    for settings, problem in (
        ({"of": "acdcc"}, "acdc"),
        ({"fraction": 0.0}, "above 0 and at most 1"),
        ({"draws": 0}, "draws is 0: it must be at least 1"),
        ({"tolerance": -0.1}, "it must be at least 0"),
        ({"split": "rows"}, "templates"),
        ({"reference": "noise"}, "resample"),
    ):
        with pytest.raises(ConfigError, match=problem):
            mx.CircuitTests(**settings)
    model = mx.load("zoo/handmade-ioi", device="cpu")
    with pytest.raises(ConfigError, match="a larger fraction"):
        mx.CircuitTests(fraction=0.006)(model, mx.tasks.ioi(model, n=4))
