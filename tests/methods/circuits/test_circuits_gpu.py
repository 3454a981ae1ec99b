"""Circuit methods on a GPU: equal to the CPU within float32's rounding; every method in bfloat16."""

import numpy as np
import pytest
import torch

import mechxai as mx

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
METHODS = [
    mx.AttributionPatching("q", qk_fix=True, grad_drop=True),
    *(mx.EdgeAttribution(kind) for kind in ("eap", "clean_corrupted", "eap_ig_inputs", "eap_ig_activations")),
    mx.EdgeAttribution("eap", reference="mean"),
    mx.EdgePatching(),
    mx.PathPatching(("a*",), ("a2.*", "logits")),
    mx.EdgePruning(steps=3),
    mx.EvaluateCircuit(discover=1.0, random_draws=2),
    mx.CircuitTests(discover=1.0, fraction=0.3, draws=10),
    mx.CircuitCriteria(discover=1.0, fraction=0.3, sets=1, greedy=1, draws=2),
    mx.CircuitStability(draws=3, top=0.1),
]
_COMPARED = {
    "evaluate_circuit": "random_faithfulness",
    "circuit_tests": "loss",
    "circuit_criteria": "unfaithful_random",
    "circuit_stability": "score",
}


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
@pytest.mark.parametrize("method", METHODS, ids=lambda one: f"{one.card.name}-{getattr(one, 'kind', '')}")
def test_gpu_equals_cpu(checkpoint, pairs, kind, method):
    found = []
    for device in ("cpu", "cuda"):
        model = mx.load(str(checkpoint(kind)), device=device)
        found.append(method(model, pairs(model, n=4, lengths=[9, 7, 9, 8], first=3)).data)
    name = _COMPARED.get(method.card.name, "value")
    np.testing.assert_allclose(found[0][name], found[1][name], atol=2e-3)


def test_acdc_on_a_gpu_equals_acdc_on_a_cpu():
    kept = []
    for device in ("cpu", "cuda"):
        model = mx.load("zoo/handmade-ioi", device=device)
        kept.append(mx.Acdc(reference="zero")(model, mx.tasks.ioi(model, n=12)).data["kept"].values)
    np.testing.assert_array_equal(*kept)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
def test_every_method_runs_in_bfloat16(checkpoint, pairs, kind):
    model = mx.load(str(checkpoint(kind)), device="cuda", dtype="bfloat16")
    batch = pairs(model, n=4)
    for method in METHODS:
        assert np.isfinite(np.nan_to_num(next(iter(method(model, batch).data.values())).values.astype(float))).all()
