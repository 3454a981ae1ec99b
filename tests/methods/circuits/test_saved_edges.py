"""Circuit files: saved edges evaluate as fresh ones, and a file of another model is refused."""

import json

import numpy as np
import pytest

import mechxai as mx
from mechxai.core.errors import ArtifactError, ConfigError, SiteError
from mechxai.model.zoo.bundled import zoo_folder


@pytest.fixture(scope="module")
def handmade():
    model = mx.load("zoo/handmade-ioi", device="cpu")
    return model, mx.tasks.ioi(model, n=8)


def test_a_saved_result_evaluates_as_a_fresh_one(handmade, tmp_path):
    model, batch = handmade
    method = mx.EdgeAttribution("eap", reference="zero")
    path = method(model, batch).save(tmp_path / "edges.nc")
    settings = {"discover": 1.0, "reference": "zero", "random_draws": 1}
    saved = mx.EvaluateCircuit(str(path), **settings)(model, batch).data
    fresh = mx.EvaluateCircuit(method, **settings)(model, batch).data
    for name in ("score", "faithfulness", "cpr", "auroc"):
        np.testing.assert_allclose(saved[name], fresh[name], atol=1e-6)


def test_a_list_of_edges_is_a_circuit(handmade):
    model, batch = handmade
    path = str(zoo_folder("zoo/handmade-ioi") / "truth.json")
    n_true, n_edges = len(model.card["truth"]["edges"]), 193
    data = mx.EvaluateCircuit(path, fractions=(n_true / n_edges, 1.0), reference="zero", random_draws=0)(
        model, batch
    ).data
    np.testing.assert_allclose(data["faithfulness"], 1, atol=1e-3)
    assert float(data["auroc"]) == 1.0
    assert int(data["n_edges"][0]) == n_true


def test_refused(handmade, tmp_path, model_of, pairs):
    model, batch = handmade
    with pytest.raises(ArtifactError, match="does not exist"):
        mx.EvaluateCircuit(of="nowhere/edges.nc")
    other = str(zoo_folder("zoo/planted-ioi") / "truth.json")
    llama = model_of("llama")
    with pytest.raises(SiteError, match=r"4 heads over 2.*a0\.h0\.k.*the model that the circuit was found in"):
        mx.EvaluateCircuit(of=other, discover=1.0)(llama, pairs(llama))
    path = tmp_path / "edges.json"
    path.write_text(json.dumps({"edges": [{"src": "a2.h0", "dest": "a1.h0.q"}]}))
    with pytest.raises(SiteError, match=r"a2\.h0 -> a1\.h0\.q"):
        mx.CircuitTests(of=str(path))(model, batch)
    for text in ("[]", "{}", '{"edges": []}', '{"edges": [{"src": "embed"}]}', "not json"):
        path.write_text(text)
        with pytest.raises(ArtifactError, match="edges"):
            mx.EvaluateCircuit(of=str(path))(model, batch)
    same = mx.ContrastBatch.from_tokens(batch.clean, batch.clean, batch.answers, batch.wrong)
    with pytest.raises(ConfigError, match=r"with all edges and .* with none .*another reference"):
        mx.EvaluateCircuit(discover=1.0)(model, same)
