"""Known circuits by edge and by pairs of nodes, by hand, and on the model trained by interchange interventions."""

import numpy as np
import pytest

import mechxai as mx
from mechxai.core.errors import SiteError
from mechxai.core.graph import Graph
from mechxai.methods.circuits._lib.known_truth import KnownCircuit

GRAPH = Graph(n_layers=2, n_heads=2, n_kv_heads=2, mlps=True, parallel=False)


def test_by_edge_and_by_node():
    edges = [("embed", "a0.h0.q"), ("m0", "logits")]
    by_edge = KnownCircuit.of(GRAPH, edges)
    assert [edge for edge, known in zip(GRAPH.edges, by_edge.true, strict=True) if known] == edges
    by_node = KnownCircuit.of(GRAPH, [("embed", "a0.h0"), ("m0", "logits")])
    known = by_node.true[by_node.units]
    expected = [("embed", "a0.h0.q"), ("embed", "a0.h0.k"), ("embed", "a0.h0.v"), edges[1]]
    assert {edge for edge, one in zip(GRAPH.edges, known, strict=True) if one} == set(expected)
    assert by_node.true.sum() == 2
    values = np.zeros((1, len(GRAPH.edges)))
    values[0, GRAPH.numbers([("embed", "a0.h0.k")]).numpy()] = 3.0
    values[0, GRAPH.numbers([("embed", "a0.h0.q")]).numpy()] = 1.0
    assert by_node.largest(values)[0][by_node.true].tolist() == [3.0, 0.0]
    with pytest.raises(SiteError, match=r"a1\.h0 -> a0\.h1"):
        KnownCircuit.of(GRAPH, [("embed", "a0.h0"), ("a1.h0", "a0.h1")])


def test_edges_of_the_interchange_model_are_found_by_exact_patching():
    model = mx.load("zoo/interchange-ioi", device="cpu")
    batch = mx.tasks.ioi(model, n=16)
    found = {}
    for name in ("edge_patching", "eap_ig_inputs", "eap"):
        data = mx.EvaluateCircuit(name, truth="visible_swap", random_draws=1)(model, batch).data
        found[name] = float(data["auroc"])
        assert int(data["known"].sum()) == 3 * 3 + 1
    assert found["edge_patching"] >= 0.99
    assert found["eap_ig_inputs"] >= 0.95
    assert found["eap"] >= 0.85
