"""Circuit criteria: knockouts by hand, the whole model as a circuit, and a known circuit."""

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ConfigError, ModelSupportError
from mechxai.core.graph import Graph
from mechxai.methods.circuits._lib.circuit_runs import CircuitRuns
from mechxai.methods.circuits._lib.knockouts import Knockouts
from mechxai.methods.circuits._lib.prepared_graph import prepare_graph
from mechxai.methods.circuits._lib.references import Reference


def test_knockouts_by_hand(model_of, pairs):
    graph = Graph(n_layers=2, n_heads=2, n_kv_heads=1, mlps=True, parallel=False)
    edges = [("embed", "a0.h0.q"), ("embed", "a0.g0.v"), ("a0.h0", "m0"), ("m0", "a1.g0.k"), ("a1.h1", "logits")]
    circuit = torch.zeros(len(graph.edges), dtype=torch.bool)
    circuit[graph.numbers(edges)] = True
    model = model_of("gpt2")
    batch = pairs(model, n=2)
    runs = CircuitRuns(prepare_graph(model, batch, "logit_diff"), Reference("zero"))
    knockouts = Knockouts(graph, circuit, runs, execution=mx.Execution())  # only the graph matters here
    assert knockouts.nodes == [
        "a0.h0",
        "a0.h1",
        "m0",
        "a1.h0",
        "a1.h1",
    ]  # keys and values of a group belong to all its heads

    def edges_without(*names):
        chosen = np.array([node in names for node in knockouts.nodes])
        return [edge for edge, kept in zip(graph.edges, knockouts.without(circuit, chosen), strict=True) if kept]

    assert edges_without() == edges
    assert edges_without("a0.h0") == [edges[1], *edges[3:]]  # not the values, which the other head reads too
    assert edges_without("m0") == [*edges[:2], edges[4]]
    assert edges_without("a1.h1", "a0.h0") == [edges[1], edges[3]]
    assert knockouts.set_name(np.zeros(5, bool)) == "none"


def test_the_whole_model_is_faithful_and_complete(model_of, pairs):
    for kind in ("gpt2", "llama", "neox"):
        model = model_of(kind)
        batch = pairs(model, n=3)
        data = mx.CircuitCriteria(fraction=1.0, discover=1.0, sets=2, greedy=1, draws=2)(model, batch).data
        runs = mx.ActivationPatching("resid_pre", ("layer",))(model, batch).data
        gap = abs(float((runs["baseline_clean"] - runs["baseline_corrupted"]).mean()))
        # shares of the gap, between runs in batches of other shapes: a logit difference near 1 rounds by 5e-6 at most
        assert float(data["unfaithful"]) == pytest.approx(0, abs=5e-6 / gap)
        np.testing.assert_allclose(data["incomplete"], 0, atol=5e-6 / gap)
        assert data.sizes["node"] == model.architecture.n_layers * (model.architecture.n_heads + 1)


def test_a_known_circuit_meets_the_criteria():
    model = mx.load("zoo/handmade-ioi", device="cpu")
    batch = mx.tasks.ioi(model, n=16)
    truth = model.card["truth"]
    n_edges = len(mx.EdgeAttribution("eap")(model, batch).data["edge"])
    settings = {"of": mx.EdgeAttribution("eap", reference="zero"), "reference": "zero", "sets": 3, "draws": 5}
    result = mx.CircuitCriteria(fraction=(len(truth["edges"]) + 0.5) / n_edges, **settings)(model, batch)
    data = result.data
    assert set(data["node"].values) == {node["node"] for node in truth["nodes"]}
    assert float(data["unfaithful"]) < 0.01
    assert float(data["incomplete"].max()) < 0.01
    assert (data["missed"] > 0.5).all(), "each of them is needed"
    assert float(data["unfaithful_random"].min()) > 0.5
    assert str(data["set"].values[-1]).startswith("greedy: ")
    assert result.info.cost["forward_passes"] > 100
    short = mx.EdgeAttribution("eap", reference="zero")
    with pytest.raises(ConfigError, match="a larger fraction"):
        mx.CircuitCriteria(of=short, fraction=0.006, reference="zero")(model, batch)


def test_refused(model_of, pairs):
    for settings, problem in (
        ({"fraction": 0.0}, r"fraction is 0\.0: it must be above 0"),
        ({"sets": 0}, "sets is 0: it must be at least 1"),
        ({"greedy": 0}, "greedy is 0: it must be at least 1"),
        ({"draws": 0}, "draws is 0: it must be at least 1"),
        ({"discover": 1.5}, r"discover is 1\.5: it must be above 0 and at most 1"),
    ):
        with pytest.raises(ConfigError, match=problem):
            mx.CircuitCriteria(**settings)
    with pytest.raises(ConfigError, match="edge_pruning"):
        mx.CircuitCriteria(of="edge_prunning")
    with pytest.raises(ModelSupportError, match="attention is not causal"):
        mx.CircuitCriteria()(model_of("bert"), pairs(model_of("bert"), n=4))
