"""ACDC against cutting edges one by one, and against known circuits."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import mechxai as mx
from mechxai.core.errors import ConfigError
from mechxai.engine.execution import Execution
from mechxai.methods.circuits import acdc
from mechxai.methods.circuits._lib.circuit_runs import CircuitRuns
from mechxai.methods.circuits._lib.edge_selection import pruned
from mechxai.methods.circuits._lib.prepared_graph import prepare_graph
from mechxai.methods.circuits._lib.references import reference


def truth(model, name):
    return {(edge["src"], edge["dest"]) for edge in model.card["truth"][name]}


def kept(data, row=0):
    chosen = data["kept"].values[row]
    return set(zip(data["src"].values[chosen], data["dest"].values[chosen], strict=True))


@pytest.mark.parametrize("kind", ["zero", "mean"])
def test_exactly_the_known_circuit_remains(kind):
    model = mx.load("zoo/handmade-ioi", device="cpu")
    batch = mx.tasks.ioi(model, n=12, template=0)
    data = mx.Acdc(thresholds=(0.01,), metric="logit_diff", reference=kind)(model, batch).data
    assert kept(data) == truth(model, "edges")


def test_edges_that_corrupted_prompts_can_show_remain():
    model = mx.load("zoo/handmade-ioi", device="cpu")
    batch = mx.tasks.ioi(model, n=8, corruption="abc")
    data = mx.Acdc(thresholds=(0.001, 0.1))(model, batch).data
    assert kept(data) == truth(model, "visible_abc")
    true = [edge in truth(model, "visible_abc") for edge in zip(data["src"].values, data["dest"].values, strict=True)]
    assert roc_auc_score(true, data["value"]) >= 0.99
    assert float(data["loss"][0]) == pytest.approx(0, abs=1e-4)


def test_induction():
    model = mx.load("zoo/handmade-induction", device="cpu")
    one, other = (mx.tasks.induction(model, n=8, seed=seed) for seed in (0, 1000))
    batch = mx.ContrastBatch.from_tokens(one.clean, other.clean, one.answers, other.answers)
    assert kept(mx.Acdc(thresholds=(0.01,))(model, batch).data) == truth(model, "edges")


@pytest.mark.parametrize(
    ("kind", "metric"),
    [
        pytest.param("gpt2", "kl_divergence", marks=pytest.mark.slow),
        ("llama", "logit_diff"),
        pytest.param("neox", "kl_divergence", marks=pytest.mark.slow),
    ],
)
def test_batched_cuts_equal_cuts_one_by_one(model_of, pairs, kind, metric, monkeypatch):
    model = model_of(kind)
    batch = pairs(model)
    monkeypatch.setattr(acdc, "_CUTS_AT_ONCE", 7)
    threshold = 0.02 if metric == "logit_diff" else 1e-4
    data = mx.Acdc(thresholds=(threshold,), metric=metric)(model, batch).data
    left = _one_by_one(model, batch, threshold, metric)
    assert (data["kept"].values[0] == left.numpy()).all()
    assert 0 < left.sum() < len(left)


def _one_by_one(model, batch, threshold, metric):
    prepared = prepare_graph(model, batch, metric).with_clean_logprobs()
    graph = prepared.graph
    runs = CircuitRuns(prepared, reference(prepared, "corrupted", seed=0))
    sign = 1 if prepared.metric.name == "kl_divergence" else -1

    def loss(left):
        return sign * float(runs.scores(left[None], Execution()).mean())

    left = torch.ones(len(graph.edges), dtype=torch.bool)
    before = loss(left)
    for reader in reversed(graph.readers):
        for src in reversed(graph.writers):
            if (src, reader) not in graph.edges:
                continue
            edge = int(graph.numbers([(src, reader)])[0])
            if not pruned(graph, left[None])[0, edge]:
                left[edge] = False  # on no path any more
                continue
            cut = left.clone()
            cut[edge] = False
            after = loss(cut)
            if after - before < threshold:
                left, before = cut, after
    return pruned(graph, left[None])[0]


def test_higher_thresholds_leave_fewer_edges():
    model = mx.load("zoo/planted-ioi", device="cpu")
    data = mx.Acdc(thresholds=(0.01, 1.0, 100.0))(model, mx.tasks.ioi(model, n=4)).data
    assert data["n_edges"].values[0] > data["n_edges"].values[2] == 0
    assert np.all(np.diff(data["n_edges"].values) <= 0)
    assert data["value"].values.max() in (0.01, 1.0)


def test_refused():
    for thresholds in ((), (0.1, 0.01), (0.0, 1.0)):
        with pytest.raises(ConfigError, match="increasing numbers above 0"):
            mx.Acdc(thresholds=thresholds)
    with pytest.raises(ConfigError, match="resample"):
        mx.Acdc(reference="noise")
