"""Faithfulness and comparison: measures by hand on a linear model, laws, known truth, caveats."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ConfigError, SiteError
from mechxai.engine.execution import Execution
from mechxai.methods.attribution._lib.evaluation.comparison import MEASURES
from mechxai.methods.attribution._lib.evaluation.curves import perturbation_curves, ranks, top_counts
from mechxai.methods.attribution._lib.evaluation.measures import (
    infidelity,
    rank_agreement,
    soft_faithfulness,
    top_overlap,
)
from mechxai.methods.attribution._lib.method_names import attribution_methods
from mechxai.methods.attribution.compare_attributions import DEFAULT_METHODS
from tests.conftest import FOLDED
from tests.methods.attribution.cases import Linear

FEW = {"random_draws": 4, "infidelity_draws": 8, "soft_draws": 2}


@pytest.fixture
def linear():
    """Four tokens worth 3, 1, -2 and 0.5 above a baseline of zero."""
    worth = torch.tensor([3.0, 1.0, -2.0, 0.5])
    model = Linear(torch.eye(10, 3), torch.zeros(16, 3))
    model.table[1:5] = torch.stack([worth, torch.zeros(4), torch.zeros(4)], 1)
    model.weights[:, 0] = 1.0
    tokens = torch.tensor([[1, 2, 3, 4]])
    batch = mx.ContrastBatch.from_tokens(tokens, tokens, torch.tensor([1]), torch.tensor([2]))
    return model, batch, worth.numpy()


def inputs_of(model, batch, metric="logit_diff", baseline="zero"):
    return mx.Occlusion(metric=metric, baseline=baseline).inputs(model, batch, Execution())


def test_curves_and_their_measures_by_hand(linear):
    model, batch, worth = linear
    inputs = inputs_of(model, batch)
    found = perturbation_curves(inputs, worth[None, None].astype(float), [0.25, 0.5])
    # in order 3, 1, 0.5, -2: gone one by one 2.5 -> -0.5 -> -1.5 -> -2 -> 0; come one by one 0 -> 3 -> 4 -> 4.5 -> 2.5
    assert found.deletion[0, 0] == pytest.approx([2.5, -0.5, -1.5, -2.0, 0.0])
    assert found.insertion[0, 0] == pytest.approx([0.0, 3.0, 4.0, 4.5, 2.5])
    assert found.comprehensiveness([0.25, 0.5])[0, 0] == pytest.approx((3 + 4) / 2)
    assert found.sufficiency([0.25, 0.5])[0, 0] == pytest.approx((-0.5 - 1.5) / 2)
    assert found.area(found.deletion)[0, 0] == pytest.approx((2.5 / 2 - 0.5 - 1.5 - 2.0 + 0.0) / 4)
    assert found.area(found.insertion)[0, 0] == pytest.approx((0 + 3 + 4 + 4.5 + 2.5 / 2) / 4)


def test_equal_counts_of_fractions_are_used_once():
    assert top_counts(16, (0.01, 0.05, 0.1, 0.2, 0.5)) == [1, 2, 4, 8]
    assert top_counts(1, (0.01, 0.5)) == [1]
    assert ranks(np.array([0.1, np.nan, 5.0])).tolist() == [1, 2, 0]


def test_true_scores_have_no_infidelity(linear):
    model, batch, worth = linear
    inputs = inputs_of(model, batch)
    scores = np.stack([worth, 2 * worth, np.zeros(4), -worth])[:, None].astype(float)
    error, scaled = infidelity(inputs, scores, draws=20, seed=0)
    assert error[0] == pytest.approx(0, abs=1e-9)
    assert error[1] > 0.1
    assert scaled[:, 0] == pytest.approx([0, 0, 1, 0], abs=1e-9)  # a sign is a scaling too
    assert error[2] == pytest.approx(error[3] / 4)  # losses themselves; twice them


def test_soft_measures_by_hand(model_of, pairs):
    model = model_of("gpt2")
    batch = mx.tasks.prompts(model, texts=["When Mary and John went to the"])
    inputs = inputs_of(model, batch, metric="prob")
    p = {
        "whole": float(inputs.target_score[0]),
        "nothing": float(inputs.baseline_score[0]),
    }
    n = inputs.players.most
    first = np.zeros((1, 1, n))
    first[0, 0, 0] = 1.0  # one player kept for certain, all others never: no chance is left
    comprehensive, sufficient = soft_faithfulness(inputs, first, draws=2, seed=0)
    absent = torch.ones(1, 1, n, dtype=torch.bool)
    absent[0, 0, 0] = False
    alone, without = (float(inputs.scores_without(mask)[0, 0]) for mask in (absent, ~absent))
    room = max(0.0, p["whole"] - p["nothing"])
    assert room > 0
    assert comprehensive[0, 0] == pytest.approx(np.clip(max(0.0, p["whole"] - without) / room, 0, 1), abs=1e-3)
    assert sufficient[0, 0] == pytest.approx(np.clip((room - max(0.0, p["whole"] - alone)) / room, 0, 1), abs=1e-3)


def test_agreement_by_hand():
    left, right = np.array([[1.0, 2.0, 3.0, np.nan]]), np.array([[3.0, 2.0, 1.0, np.nan]])
    assert rank_agreement(left, right) == pytest.approx([-1])
    assert rank_agreement(left, left) == pytest.approx([1])
    assert np.isnan(rank_agreement(left, np.zeros_like(left))).all()
    assert top_overlap(left, right, 0.34).tolist() == [0.0]
    assert top_overlap(left, right, 0.67).tolist() == [0.5]


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_faithfulness_on_every_model(model_of, pairs, kind, backend, processing):
    model = model_of(kind, backend, processing)
    batch = pairs(model, n=3, width=8, lengths=[8, 6, 7])
    result = mx.Faithfulness("occlusion", **FEW, sensitivity_draws=1)(model, batch)
    for name in MEASURES:
        for variable in (name, f"{name}_gain", f"{name}_low", f"{name}_gain_high"):
            assert result.data[variable].dims == ()
        assert result.data[f"{name}_per_example"].dims == ("prompt",)
    assert float(result.data["comprehensiveness"]) == pytest.approx(
        float(result.data["comprehensiveness_per_example"].mean())
    )
    curve = result.data["deletion"].values
    base = mx.Occlusion()(model, batch).data
    assert curve[0] == pytest.approx(float(base["target_score"].mean()), abs=1e-4)
    assert curve[-1] == pytest.approx(float(base["baseline_score"].mean()), abs=1e-4)
    assert 0 <= float(result.data["max_sensitivity"]) < 5
    assert -1 <= float(result.data["randomisation_similarity"]) <= 1


def test_a_padded_batch_has_the_measures_of_single_prompts(model_of, pairs):
    model = model_of("llama")
    batch = pairs(model, n=2, width=8, lengths=[8, 6])
    method = mx.Faithfulness("occlusion", **FEW, sensitivity_draws=0, randomise=False)
    whole = method(model, batch).data
    first = method(model, batch.rows(slice(0, 1))).data
    for name in MEASURES:
        here, there = (float(one[f"{name}_per_example"][0]) for one in (whole, first))
        assert here == pytest.approx(there, abs=1e-4, nan_ok=True), name


def test_a_continuation_is_evaluated(model_of):
    model = model_of("gpt2")
    batch = mx.ContrastBatch.from_prompts(
        model, ["The capital of France is"], ["The capital of France is"], [" Paris. The"], [" the park"]
    )
    result = mx.Faithfulness("occlusion", metric="logprob", **FEW, sensitivity_draws=0, randomise=False)(model, batch)
    assert np.isfinite(float(result.data["insertion_auc"]))
    assert np.isnan(float(result.data["soft_sufficiency"]))  # a continuation so unlikely that no fall can be measured
    assert result.data["comprehensiveness"].attrs["units"] == "nats"


def test_random_weights_change_the_scores(zoo):
    batch = mx.tasks.ioi(zoo, n=6)
    learnt = mx.Faithfulness("occlusion", **FEW, sensitivity_draws=0)(zoo, batch).data
    assert float(learnt["randomisation_similarity"]) < 0.6
    assert float(learnt["comprehensiveness_gain_low"]) > 0


@pytest.mark.slow
def test_the_tokens_that_matter_are_found_where_they_are_known():
    model = mx.load("zoo/handmade-ioi", device="cpu")
    batch = mx.tasks.ioi(model, n=8)
    removal = ("occlusion", "kernel_shap", "integrated_gradients")
    result = mx.CompareAttributions(removal, truth=("IO", "S1", "S2"), **FEW)(model, batch)
    assert (result.data["auroc"].sel(method=["occlusion", "kernel_shap"]) > 0.85).all()
    assert (result.data["auroc_low"] <= result.data["auroc"]).all()


def test_the_comparison_equals_each_method_alone(model_of, pairs):
    model = model_of("neox")
    batch = pairs(model, n=2, width=7, lengths=[7, 6])
    result = mx.CompareAttributions((mx.Occlusion(), "gradient_x_input", mx.Occlusion(baseline="mean")), **FEW)(
        model, batch
    )
    assert result.data["method"].values.tolist() == ["occlusion", "gradient_x_input", "occlusion 2"]
    alone = mx.Occlusion()(model, batch).data["value"].values
    assert result.data["attribution"].values[0] == pytest.approx(alone, abs=1e-5, nan_ok=True)
    assert np.diag(result.data["agreement"].values) == pytest.approx(1)
    assert result.data["agreement"].values == pytest.approx(result.data["agreement"].values.T)
    assert result.data["forward_passes"].values[0] == pytest.approx(6.5 + 1)  # every token once, and the prompt
    single = mx.Faithfulness(mx.Occlusion(), **FEW, sensitivity_draws=0, randomise=False)(model, batch).data
    for name in ("comprehensiveness", "insertion_auc", "infidelity_scaled"):
        assert float(result.data[name][0]) == pytest.approx(float(single[name]), abs=1e-6)


@pytest.mark.slow
def test_caveats_are_notes(zoo):
    batch = mx.tasks.ioi(zoo, n=4)
    methods = (mx.IntegratedGradients(n_steps=1, max_steps=1), mx.AttentionScores(), "lime")
    notes = " ".join(mx.CompareAttributions(methods, **FEW)(zoo, batch).info.notes)
    assert "attention weights alone" in notes
    assert "integrated_gradients has not converged" in notes
    assert "linear model explains less than half" in notes


@pytest.mark.parametrize("name", attribution_methods())
def test_every_method_has_a_name(name, zoo):
    batch = mx.tasks.ioi(zoo, n=2)
    result = mx.CompareAttributions((name,), players="span", **FEW)(zoo, batch)
    assert result.data.sizes["method"] == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mx.CompareAttributions(("salience",)), "Did you mean 'saliency'"),
        (lambda: mx.CompareAttributions(()), "no methods"),
        (lambda: mx.CompareAttributions(top=0.0), "top"),
        (lambda: mx.Faithfulness("shap"), "Unknown attribution method 'shap'"),
        (lambda: mx.Faithfulness(fractions=(0.0,)), "fractions"),
        (lambda: mx.Faithfulness(random_draws=0), "random_draws is 0"),
        (lambda: mx.Faithfulness(radius=0.0), "radius"),
    ],
)
def test_bad_fields_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_an_unknown_role_is_refused(zoo):
    batch = mx.tasks.ioi(zoo, n=2)
    with pytest.raises(SiteError, match="S3"):
        mx.CompareAttributions(("saliency",), truth=("S3",))(zoo, batch)


def test_masked_models_are_evaluated(model_of):
    model = model_of("bert")
    batch = mx.tasks.prompts(model, texts=["The capital of [MASK] is Paris.", "Mary gave [MASK] to John."])
    result = mx.Faithfulness("occlusion", **FEW, sensitivity_draws=1)(model, batch)
    assert np.isfinite(float(result.data["comprehensiveness"]))


def test_the_methods_use_the_metric_of_the_comparison(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model)
    result = mx.CompareAttributions((mx.Occlusion(metric="prob"),), metric="logit", **FEW)(model, batch)
    alone = mx.Occlusion(metric="logit")(model, batch)
    assert result.data["attribution"].values[0] == pytest.approx(alone.data["value"].values, abs=1e-5)
    assert replace(mx.Occlusion(), metric="logit").metric == "logit"


def test_the_methods_by_name_are_the_registered_ones():
    methods = attribution_methods()
    assert set(DEFAULT_METHODS) | {"exact_shapley"} == set(methods)
    assert all(kind.card.name == name and kind.card.family == "attribution" for name, kind in methods.items())
