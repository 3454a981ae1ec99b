"""Circuit evaluation: the curve, the areas under it, pruning, random circuits and known circuits."""

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ConfigError
from mechxai.core.graph import Graph
from mechxai.methods.circuits._lib.edge_selection import FRACTIONS, pruned, top_edges
from mechxai.methods.circuits._lib.faithfulness_curve import areas
from tests.conftest import FOLDED


@pytest.fixture(scope="module")
def handmade():
    model = mx.load("zoo/handmade-ioi", device="cpu")
    return model, mx.tasks.ioi(model, n=12)


def test_the_known_circuit_is_faithful_and_random_circuits_are_not(handmade):
    data = mx.EvaluateCircuit(truth="visible_swap", fractions=(0.02, 0.05, 0.5, 1.0))(*handmade).data
    np.testing.assert_allclose(data["faithfulness"], [0, 1, 1, 1], atol=1e-3)
    assert data["n_edges"].values.tolist()[-1] == 193
    assert 0.98 < float(data["auroc_low"]) <= float(data["auroc"]) <= float(data["auroc_high"]) <= 1
    assert float(data["auroc"]) >= 0.99
    for name in ("cpr", "cmd"):
        assert float(data[f"{name}_low"]) <= float(data[name]) + 1e-9 <= float(data[f"{name}_high"]) + 2e-9
    assert data["recall"].values[1] == 1.0
    assert data["precision"].values[1] >= 0.5  # nine edges, five of them true; the others score next to nothing
    assert data["random_faithfulness"].values[1].max() < 0.5
    assert float(data["cpr"]) > data["cpr_random"].values.max()
    assert float(data["cmd"]) < data["cmd_random"].values.min()


@pytest.mark.parametrize(
    "reference", ["corrupted", "mean", *(pytest.param(one, marks=pytest.mark.slow) for one in ("zero", "resample"))]
)
@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_all_edges_are_the_model_under_every_reference(model_of, pairs, kind, backend, processing, reference):
    model = model_of(kind, backend, processing)
    batch = pairs(model, n=4)
    method = mx.EvaluateCircuit(fractions=(0.1, 1.0), reference=reference, random_draws=1)
    data = method(model, batch).data
    assert data["faithfulness"].values[-1] == pytest.approx(1, abs=1e-3)
    clean = mx.EdgePatching()(model, batch).data["baseline_clean"].values[2:]
    assert float(data["baseline_clean"]) == pytest.approx(clean.mean(), abs=1e-4)


def test_no_edges_are_the_corrupted_run(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=4)
    data = mx.EvaluateCircuit(fractions=(1e-6, 1.0), random_draws=0)(model, batch).data
    assert data["faithfulness"].values[0] == pytest.approx(0, abs=1e-6)
    corrupted = mx.EdgePatching()(model, batch).data["baseline_corrupted"].values[2:]
    assert float(data["baseline_none"]) == pytest.approx(corrupted.mean(), abs=1e-4)
    assert data.sizes["draw"] == 0


def test_circuits_are_tested_on_other_prompts(handmade, monkeypatch):
    model, batch = handmade
    seen = []
    original = mx.EdgeAttribution.__call__

    def listening(self, model, batch, **more):
        seen.append(batch.clean)
        return original(self, model, batch, **more)

    monkeypatch.setattr(mx.EdgeAttribution, "__call__", listening)
    method = mx.EvaluateCircuit(discover=0.25, random_draws=0)
    method(model, batch)
    assert torch.equal(seen[0], batch.clean[:3])
    whole = mx.EvaluateCircuit(discover=1.0, random_draws=0)(model, batch)
    assert torch.equal(seen[1], batch.clean)
    assert any("tested on the prompts it was found on" in note for note in whole.info.notes)
    with pytest.raises(ConfigError, match="discover=1"):
        method(model, batch.rows(slice(0, 1)))


def test_circuits_are_tested_on_other_templates(handmade, monkeypatch):
    model, batch = handmade
    seen = []
    original = mx.EdgeAttribution.__call__
    monkeypatch.setattr(
        mx.EdgeAttribution,
        "__call__",
        lambda self, model, batch, **more: seen.append(batch) or original(self, model, batch),
    )
    data = mx.EvaluateCircuit(split="templates", fractions=(0.05, 1.0), random_draws=0)(model, batch).data
    other = set(batch.groups) - set(seen[0].groups)
    assert len(seen[0]) < len(batch)
    assert other
    assert data["faithfulness"].values[0] == pytest.approx(1, abs=1e-3)
    one = mx.tasks.ioi(model, n=4, template=0)
    with pytest.raises(ConfigError, match="by templates"):
        mx.EvaluateCircuit(split="templates")(model, one)


def test_edges_of_other_methods(handmade):
    model, batch = handmade
    names = [
        mx.EvaluateCircuit("edge_patching", random_draws=0, truth="visible_swap"),
        mx.EvaluateCircuit(mx.EdgePatching(), random_draws=0, truth="visible_swap"),
    ]
    found = [method(model, batch).data for method in names]
    np.testing.assert_array_equal(found[0]["score"], found[1]["score"])
    assert float(found[0]["auroc"]) >= 0.99


def test_areas_by_hand():
    values = np.array([[0.0], [0.5], [1.0]])
    cpr, cmd = areas(values, [0.0, 0.5, 1.0])
    assert (cpr[0], cmd[0]) == (0.5, 0.5)
    cpr, cmd = areas(np.ones((10, 1)), FRACTIONS)
    assert cpr[0] == pytest.approx(0.999)
    assert cmd[0] == 0
    _, over = areas(np.array([[1.5], [1.5]]), [0.0, 1.0])
    assert over[0] == 0.5


def test_top_edges():
    scores = np.array([0.1, -3.0, np.nan, 2.0])
    assert top_edges(scores, [0.25, 0.5, 1.0], rank="absolute").tolist() == [
        [False, True, False, False],
        [False, True, False, True],
        [True, True, True, True],
    ]
    assert top_edges(scores, [0.25], rank="signed").tolist() == [[False, False, False, True]]
    assert top_edges(scores, [0.2], rank="signed").sum() == 0


def of(graph, *edges):
    chosen = torch.zeros(1, len(graph.edges), dtype=torch.bool)
    chosen[0, graph.numbers(list(edges))] = True
    return chosen


def kept(graph, *edges):
    return {graph.edges[at] for at in pruned(graph, of(graph, *edges))[0].nonzero()[:, 0].tolist()}


def test_pruning_by_hand():
    graph = Graph(2, 2, 2, mlps=True, parallel=False)
    way = (("embed", "a0.h0.v"), ("a0.h0", "m1"), ("m1", "logits"))
    assert kept(graph, *way) == set(way)
    assert kept(graph, *way, ("embed", "a1.h0.q"), ("a0.h1", "a1.h1.k"), ("a1.h1", "logits")) == set(way)
    assert kept(graph, *way, ("embed", "m0")) == set(way), "leads nowhere"
    assert kept(graph, ("a0.h0", "m1"), ("m1", "logits")) == set(), "comes from nowhere"
    two = (("embed", "a0.h0.q"), ("embed", "a0.h0.k"), ("a0.h0", "logits"))
    assert kept(graph, *two) == set(two), "any input will do"


def test_pruning_of_groups():
    graph = Graph(2, 4, 2, mlps=False, parallel=False)
    way = (("embed", "a0.g1.k"), ("a0.h3", "logits"))
    assert kept(graph, *way) == set(way), "head 3 is of group 1"
    assert kept(graph, ("embed", "a0.g0.k"), ("a0.h3", "logits")) == set()


def test_refused(handmade):
    for settings, problem in (
        ({"of": "acdcc"}, "edge_attribution"),
        ({"fractions": (0.5, 0.1)}, "increasing"),
        ({"fractions": (0.0, 1.0)}, "above 0"),
        ({"fractions": ()}, "increasing"),
        ({"discover": 0.0}, r"discover is 0\.0: it must be above 0"),
        ({"random_draws": -1}, "random_draws is -1: it must be at least 0"),
        ({"rank": "size"}, "absolute"),
        ({"split": "rows"}, "templates"),
        ({"reference": "corrupt"}, "corrupted"),
    ):
        with pytest.raises(ConfigError, match=problem):
            mx.EvaluateCircuit(**settings)
    with pytest.raises(ConfigError, match="visible_swap"):
        mx.EvaluateCircuit(truth="visible_swop")(*handmade)
