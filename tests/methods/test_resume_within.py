"""Every method that may take long resumes within itself: no finished part is computed twice, and costs count it all."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.engine import finished
from mechxai.engine.progress import progress_listener


@pytest.fixture(scope="module")
def ioi():
    model = mx.load("zoo/handmade-ioi")
    return model, mx.tasks.ioi(model, n=6, seed=0)


@pytest.fixture(scope="module")
def trained():
    model = mx.load("zoo/ioi")
    return model, mx.tasks.ioi(model, n=20, seed=0)


@pytest.fixture(scope="module")
def probes():
    model = mx.load("zoo/ioi")
    return model, mx.tasks.subject_number(model, n=60)


@pytest.fixture(scope="module")
def sentiment(tmp_path_factory):
    model = mx.load_classifier("zoo/sentiment", device="cpu")
    return model, mx.tasks.reviews(model, n=3)


@pytest.fixture(scope="module")
def box():
    model = mx.black_box(lambda texts: [[float(len(text)), float(text.count("a"))] for text in texts], ["long", "a"])
    return model, mx.tasks.prompts(
        model, texts=["a man sat in a park", "a cat and a bat", "an owl at sea"], answers=["a"] * 3, wrong=["long"] * 3
    )


@pytest.fixture(scope="module")
def cot():
    model = mx.load("zoo/cot")
    return model, mx.tasks.cot_arithmetic(model, n=5, seed=0)


METHODS = {
    "acdc": ("ioi", mx.Acdc(thresholds=(0.01, 0.1))),
    "attribution_patching": ("trained", mx.AttributionPatching()),
    "circuit_criteria": ("ioi", mx.CircuitCriteria(fraction=0.05, draws=4, sets=3)),
    "circuit_stability": ("ioi", mx.CircuitStability(of=mx.EdgePruning(steps=8), draws=3)),
    "circuit_tests": ("ioi", mx.CircuitTests(fraction=0.05, draws=20)),
    "compare_circuits": ("ioi", mx.CompareCircuits(methods=("eap", "edge_patching"), references=("corrupted", "zero"))),
    "edge_attribution": ("trained", mx.EdgeAttribution()),
    "edge_patching": ("ioi", mx.EdgePatching()),
    "edge_pruning": ("ioi", mx.EdgePruning(steps=12)),
    "evaluate_circuit": ("ioi", mx.EvaluateCircuit(of="eap", random_draws=6)),
    "information_flow_routes": ("trained", mx.InformationFlowRoutes()),
    "neuron_factors": ("trained", mx.NeuronFactors(n=3, draws=2)),
    "logit_lens": ("trained", mx.LogitLens()),
    "tuned_lens_train": ("trained", mx.TunedLensTraining(steps=6, checkpoint_every=2)),
    "integrated_gradients": ("trained", mx.IntegratedGradients()),
    "kernel_shap": ("trained", mx.KernelShap(n_samples=64)),
    "compare_attributions": ("trained", mx.CompareAttributions(methods=("saliency", "occlusion", "lime"))),
    "faithfulness": ("trained", mx.Faithfulness()),
    "faithfulness of a classifier": ("sentiment", mx.Faithfulness()),
    "occlusion of a classifier": ("sentiment", mx.Occlusion()),
    "occlusion of a black box": ("box", mx.Occlusion()),
    "linear_probes": ("probes", mx.LinearProbes(layers=(1, 2), pos=(1, 2, -1), random_model=False)),
    "early_answering": ("cot", mx.EarlyAnswering()),
    "adding_mistakes": ("cot", mx.AddingMistakes()),
    "self_consistency": ("cot", mx.SelfConsistency(samples=3)),
}
NOT_OF_THE_QUESTION = {"seconds", "cells_reused", "check_forward_passes", "writer seconds"}


class Stopped(BaseException):
    pass


def stop_after(n):
    steps = iter(range(n))

    def listener(share):
        if next(steps, None) is None:
            raise Stopped

    return listener


def steps_of(method, model, batch, execution):
    shares = []
    with progress_listener(shares.append):
        result = method(model, batch, execution=execution)
    return len(shares), result


def computed_parts(monkeypatch):
    """The labels of the parts that are computed from now on."""
    labels, add = [], finished.FinishedPieces._add

    def counted(self, label, tensors, seconds):
        labels.append((self._files._key, label))
        add(self, label, tensors, seconds)

    monkeypatch.setattr(finished.FinishedPieces, "_add", counted)
    return labels


@pytest.mark.parametrize("name", METHODS)
def test_an_interrupted_method_resumes(name, request, tmp_path, monkeypatch):
    fixture, method = METHODS[name]
    model, batch = request.getfixturevalue(fixture)
    monkeypatch.setattr("mechxai.methods.lens._lib.stream_reading._MAX_PLACES", 64)
    small = {"budget_bytes": 1} if name == "edge_attribution" else {}
    cells = mx.Execution(cells=tmp_path, **small)
    n_steps, whole = steps_of(method, model, batch, replace(cells, cells=None))
    assert n_steps > 1, "nothing to interrupt"
    labels = computed_parts(monkeypatch)
    with pytest.raises(Stopped), progress_listener(stop_after(max(1, n_steps // 2))):
        method(model, batch, execution=cells)
    before = list(labels)
    labels.clear()
    resumed = method(model, batch, execution=cells)
    after = list(labels)
    assert not set(before) & set(after), "a finished part was computed again"
    assert before or resumed.info.cost.get("cells_reused") or any(tmp_path.rglob("*"))
    equal(resumed, whole)
    labels.clear()
    again = method(model, batch, execution=cells)
    assert not labels
    equal(again, whole)


def equal(result, whole):
    timed = [name for name in whole.data if "seconds" in str(name)]
    for left in (result, whole):
        assert set(left.info.cost) == set(whole.info.cost)
    assert result.data.drop_vars(timed).identical(whole.data.drop_vars(timed)), differences(result, whole)
    for name, value in whole.info.cost.items():
        if name not in NOT_OF_THE_QUESTION:
            assert math.isclose(result.info.cost[name], value), name


def differences(result, whole):
    found = {}
    for name in whole.data:
        a, b = result.data[name].values, whole.data[name].values
        if a.shape != b.shape or (a.dtype.kind in "fiub" and not np.array_equal(a, b, equal_nan=a.dtype.kind == "f")):
            found[name] = (a.shape, b.shape, float(np.nanmax(np.abs(a - b))) if a.shape == b.shape else None)
    return found


@pytest.mark.parametrize(
    "name", ["acdc", "edge_attribution", "edge_pruning", "kernel_shap", "early_answering", "tuned_lens_train"]
)
def test_seconds_count_the_work_of_earlier_processes(name, request, tmp_path):
    fixture, method = METHODS[name]
    model, batch = request.getfixturevalue(fixture)
    whole = method(model, batch, execution=mx.Execution(cells=tmp_path)).info.cost["seconds"]
    again = method(model, batch, execution=mx.Execution(cells=tmp_path)).info.cost["seconds"]
    assert again > 0.5 * whole


@pytest.mark.parametrize("name", ["acdc", "edge_attribution", "edge_pruning", "attribution_patching", "kernel_shap"])
def test_parts_of_another_question_are_not_used(name, request, tmp_path):
    fixture, method = METHODS[name]
    model, batch = request.getfixturevalue(fixture)
    method(model, batch, execution=mx.Execution(cells=tmp_path))
    other = batch.rows(torch.arange(len(batch) - 1))
    equal(method(model, other, execution=mx.Execution(cells=tmp_path)), method(model, other))


def test_a_damaged_file_of_parts_is_computed_again(ioi, tmp_path):
    model, batch = ioi
    method = mx.EdgeAttribution()
    whole = method(model, batch, execution=mx.Execution(cells=tmp_path))
    for file in tmp_path.glob("*.safetensors"):
        content = bytearray(file.read_bytes())
        content[-3] ^= 4
        file.write_bytes(content)
    equal(method(model, batch, execution=mx.Execution(cells=tmp_path)), whole)


def test_a_full_disk_costs_the_saving_only(ioi, tmp_path, monkeypatch):
    model, batch = ioi

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mechxai.engine.checkpoint.save_file", full)
    result = mx.Acdc(thresholds=(0.1,))(model, batch, execution=mx.Execution(cells=tmp_path))
    assert any("No space left" in note for note in result.info.notes)
