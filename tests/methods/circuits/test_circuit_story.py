"""Every circuit method on every kind of model, in bfloat16 too; resumed edge sweeps; the memory of edge scores."""

import resource
import subprocess
import sys

import numpy as np
import pytest

import mechxai as mx

METHODS = [
    mx.ActivationPatching("resid_pre", ("layer", "pos")),
    mx.AttributionPatching("q", qk_fix=True, grad_drop=True),
    *(mx.EdgeAttribution(kind, steps=2) for kind in ("eap", "clean_corrupted", "eap_ig_inputs", "eap_ig_activations")),
    mx.EdgePatching(),
    mx.HeadRoles(n_random=2, syntax=0),
    mx.PathPatching(("a*",), ("a2.*", "logits")),
    mx.Acdc((0.01, 0.1)),
    mx.EdgePruning(steps=2),
    mx.EvaluateCircuit(discover=1.0, random_draws=1),
    mx.CircuitStability("eap", draws=2, top=0.1),
    mx.CircuitCriteria("eap", fraction=0.3, discover=1.0, sets=1, greedy=1, draws=1),
    mx.CircuitTests("eap", fraction=0.3, discover=1.0, draws=3, most=3),
]


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("llama", "float32"),
        ("neox", "bfloat16"),
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in (("gpt2", "float32"), ("gpt2", "bfloat16"), ("llama", "bfloat16"), ("neox", "float32"))
        ),
    ],
)
def test_every_method_runs(model_of, pairs, kind, dtype):
    model = model_of(kind, "auto", "folded", dtype)
    batch = pairs(model, n=4, lengths=[9, 7, 9, 8], first=3)
    for method in METHODS:
        result = method(model, batch)
        values = result.data[next(name for name in result.data.data_vars if result.data[name].dtype.kind == "f")]
        assert np.isfinite(values.values).any(), method.card.name
        mx.plot(result)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_bfloat16_scores_are_near_float32s(model_of, pairs, kind):
    found = []
    for dtype in ("float32", "bfloat16"):
        model = model_of(kind, "auto", "folded", dtype)
        batch = pairs(model, n=4)
        found.append(
            [method(model, batch).data["value"].values for method in (mx.EdgeAttribution("eap"), mx.EdgePatching())]
        )
    for exact, rounded in zip(*found, strict=True):
        assert np.corrcoef(exact, rounded)[0, 1] > 0.98


def test_an_interrupted_edge_sweep_resumes(model_of, pairs, tmp_path):
    model = model_of("gpt2")
    batch = pairs(model, n=4)
    execution = mx.Execution(cells=tmp_path / "cells")
    first = mx.EdgePatching()(model, batch, execution=execution)
    again = mx.EdgePatching()(model, batch, execution=execution)
    assert first.info.cost["cells_reused"] == 0
    assert again.info.cost["cells_reused"] == again.info.cost["cells"] > 0
    np.testing.assert_array_equal(first.data["value"], again.data["value"])


_MEASURE = """
import resource, sys, torch
torch.set_num_threads(1)
import mechxai as mx
from benchmarks.hooked import hooked_transformer
from benchmarks.peers import pair
from benchmarks.shapes import GPT2_SMALL
model, batch = mx.wrap(hooked_transformer(GPT2_SMALL), name="shape"), pair(n_prompts=8)
mx.EdgeAttribution("eap")(model, batch.rows(slice(0, 1)))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for kind in ("eap", "eap_ig_inputs"):
    mx.EdgeAttribution(kind)(model, batch)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20)
"""


@pytest.mark.slow
def test_scores_of_eight_prompts_at_the_size_of_gpt2_small_take_less_than_two_gib_more():
    assert resource.RUSAGE_SELF is not None
    done = subprocess.run([sys.executable, "-c", _MEASURE], capture_output=True, text=True, check=True)
    assert float(done.stdout.strip().splitlines()[-1]) < 2.0
