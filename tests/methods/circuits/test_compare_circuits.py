"""Comparison of discovery methods: rows equal evaluations, and references that a method does not take are NaN."""

import numpy as np
import pytest

import mechxai as mx
from mechxai.core.errors import ConfigError
from mechxai.methods import registry
from mechxai.methods.circuits._lib.discovery import DISCOVERY_METHODS, discovery_methods
from mechxai.methods.circuits.compare_circuits import task_of
from mechxai.report.by_kind import result_tables


@pytest.fixture(scope="module")
def compared():
    model = mx.load("zoo/handmade-ioi", device="cpu")
    batch = mx.tasks.ioi(model, n=8)
    method = mx.CompareCircuits(
        methods=["eap", "edge_patching"], references=["corrupted", "zero"], beside=["zoo/handmade-induction"]
    )
    return model, batch, method(model, batch)


def test_discovery_methods_are_the_registered_methods_that_score_edges():
    registered = {card.name for card in registry.cards() if card.kind == "edges"}
    assert set(DISCOVERY_METHODS) | {"edge_attribution"} == set(discovery_methods())
    assert registered == {method.card.name for method in discovery_methods().values()}


def test_rows_are_evaluations(compared):
    model, batch, result = compared
    data = result.data
    assert data["auroc"].dims == ("model", "method", "reference")
    assert data["model"].values.tolist() == ["zoo/handmade-ioi", "zoo/handmade-induction"]
    truth = model.card["truth"]
    for reference, name in (("corrupted", "visible_swap"), ("zero", "edges")):
        size = (len(truth[name]) + 0.5) / 193
        alone = mx.EvaluateCircuit(
            mx.EdgeAttribution("eap", reference=reference),
            fractions=sorted({size, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0}),
            reference=reference,
            truth=name,
        )(model, batch).data
        own = data.sel({"model": "zoo/handmade-ioi", "method": "eap", "reference": reference})
        for measure in ("auroc", "auroc_low", "cpr", "cmd"):
            assert float(own[measure]) == pytest.approx(float(alone[measure]), abs=1e-6)
        assert float(own["recall"]) == pytest.approx(float(alone["recall"].values[alone["fraction"].values == size][0]))
        assert float(own["cmd"]) < float(own["cmd_random"])


def test_methods_without_the_reference_are_nan(compared):
    data = compared[2].data
    assert np.isnan(data["auroc"].sel({"method": "edge_patching", "reference": "zero"})).all()
    assert np.isfinite(data["auroc"].sel({"method": "edge_patching", "reference": "corrupted"})).all()
    assert any("edge_patching does not take reference=zero" in note for note in compared[2].info.notes)


def test_tables(compared):
    tables = result_tables(compared[2], compared[0].card)
    assert len(tables) == 2
    rows = tables["Ways of finding the circuit of zoo/handmade-ioi"]
    assert [row["method"] for row in rows].count("eap") == 2
    assert [row["AUROC"] for row in rows] == sorted((row["AUROC"] for row in rows), reverse=True)
    assert len(rows) == 3


def test_other_models_use_their_task():
    model = mx.load("zoo/interchange-ioi", device="cpu")
    assert task_of(model, 4, 0).info["name"] == "ioi"
    plain = mx.load("zoo/ioi", device="cpu")
    batch = mx.tasks.ioi(plain, n=4)
    with pytest.raises(ConfigError, match="has no known circuit"):
        mx.CompareCircuits()(plain, batch)
    with pytest.raises(ConfigError, match="eap_ig_inputs"):
        mx.CompareCircuits(methods=["eap_ig"])
