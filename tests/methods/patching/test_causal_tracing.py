"""Causal tracing equals runs with hooks set by hand."""

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.core.edit import AddNoise
from mechxai.core.errors import ConfigError, SiteError
from mechxai.core.metric import as_metric
from tests.conftest import FOLDED


@pytest.fixture
def subjects(pairs):
    """Pairs with a subject of two tokens (one in prompt 1)."""

    def make(model, **settings):
        batch = pairs(model, n=3, **settings)
        roles = {"SUBJECT": torch.tensor([3, 2, 4]), "SUBJECT_first": torch.tensor([2, 2, 3])}
        return mx.ContrastBatch.from_tokens(
            batch.clean, batch.corrupted, batch.answers, batch.wrong, mask=batch.mask, roles=roles
        )

    return make


def blur(model, batch, noise, draw, seed=0):
    """The edit of one noise draw, by hand: only the subject's tokens, in units of these prompts' embeddings."""
    std = float(model.cache(batch.clean, ["embed"])["embed"][batch.mask].std(correction=0))
    where = torch.zeros(3, batch.n_pos, dtype=torch.bool)
    where[0, 2:4] = where[1, 2] = where[2, 3:5] = True
    return mx.Intervention(mx.Site("embed"), AddNoise(noise * std, seed * 1000 + draw, where))


def scored(model, batch, interventions, metric="prob"):
    return as_metric(metric)(model.logits(batch.clean, layout=batch.layout, interventions=interventions), batch).numpy()


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_blurs_the_subject_and_restores_one_state(model_of, subjects, kind, backend, processing):
    model = model_of(kind, backend, processing)
    batch = subjects(model, lengths=[9, 6, 7])
    result = mx.CausalTracing("resid_post", n_noise=2, noise=2.0, metric="logit_diff", seed=1)(model, batch)
    clean = model.cache(batch.clean, ["resid_post"], lengths=batch.lengths)
    draws = [blur(model, batch, 2.0, draw, seed=1) for draw in range(2)]
    blurred = np.mean([scored(model, batch, [draw], "logit_diff") for draw in draws], 0)
    np.testing.assert_allclose(result.data["baseline_corrupted"].values, blurred, atol=1e-4)
    np.testing.assert_allclose(result.data["baseline_clean"].values, scored(model, batch, [], "logit_diff"), atol=1e-5)
    found = result.data["per_example"].values
    for layer, pos in ((0, 2), (1, 3), (2, 5), (0, 8)):
        patch = mx.Intervention(mx.Site("resid_post", layer, pos=pos), mx.Patch(clean))
        by_hand = np.mean([scored(model, batch, [draw, patch], "logit_diff") for draw in draws], 0)
        np.testing.assert_allclose(found[:, layer, pos], by_hand, atol=1e-4)
    np.testing.assert_allclose(
        found[:, :, 0],
        np.broadcast_to(blurred[:, None], (3, 3)),
        atol=1e-4,
        err_msg="before the subject nothing is blurred",
    )


def test_draws_are_averaged(model_of, subjects):
    model = model_of("gpt2")
    batch = subjects(model)
    method = {"site": "mlp_out", "over": ("layer",), "noise": 2.0, "metric": "logit_diff"}
    three = mx.CausalTracing(**method, n_noise=3)(model, batch)
    one = mx.CausalTracing(**method, n_noise=1)(model, batch)
    by_hand = [scored(model, batch, [blur(model, batch, 2.0, draw)], "logit_diff") for draw in range(3)]
    np.testing.assert_allclose(three.data["baseline_corrupted"], np.mean(by_hand, 0), atol=1e-4)
    np.testing.assert_allclose(one.data["baseline_corrupted"], by_hand[0], atol=1e-4)
    assert np.abs(by_hand[0] - by_hand[1]).max() > 1e-3, "draws differ"
    assert three.info.cost["cells"] == 3 * one.info.cost["cells"]


@pytest.mark.parametrize(
    ("window", "layers"),
    [(1, {0: [0], 1: [1], 2: [2]}), (2, {0: [0, 1], 1: [1, 2], 2: [2]}), (3, {0: [0, 1], 1: [0, 1, 2], 2: [1, 2]})],
)
def test_a_window_restores_its_neighbours(model_of, subjects, window, layers):
    model = model_of("gpt2")
    batch = subjects(model)
    result = mx.CausalTracing(
        "mlp_out", ("layer", "pos"), pos=("SUBJECT", -1), n_noise=1, window=window, metric="logit_diff"
    )(model, batch)
    clean, draw = model.cache(batch.clean, ["mlp_out"]), blur(model, batch, 3.0, 0)
    clean = mx.Activations(clean.values, batch.layout)
    for layer, together in layers.items():
        for column, pos in enumerate(("SUBJECT", -1)):
            patches = [mx.Intervention(mx.Site("mlp_out", one, pos=pos), mx.Patch(clean)) for one in together]
            by_hand = scored(model, batch, [draw, *patches], "logit_diff")
            np.testing.assert_allclose(result.data["per_example"].values[:, layer, column], by_hand, atol=1e-4)


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_restoring_everything_recovers_everything(model_of, subjects, kind, backend, processing):
    model = model_of(kind, backend, processing)
    batch = subjects(model, lengths=[9, 6, 7])
    result = mx.CausalTracing("resid_pre", ("layer",), n_noise=2, metric="logit_diff")(model, batch)
    np.testing.assert_allclose(result.data["recovered"].values, 1.0, atol=1e-3)
    gap = result.data["baseline_clean"].values - result.data["baseline_corrupted"].values
    assert np.abs(gap).max() > 1e-2
    at_subject = mx.CausalTracing("resid_pre", ("layer", "pos"), layers=(0,), n_noise=1, metric="logit_diff")(
        model, batch
    )
    one_token = batch.rows(slice(1, 2))
    assert int(one_token.roles["SUBJECT"][0]) == 2
    np.testing.assert_allclose(
        at_subject.data["per_example"].values[1, 0, 2], result.data["baseline_clean"].values[1], atol=1e-4
    )


def test_levels_agree(model_of, subjects):
    model = model_of("llama")
    batch = subjects(model, lengths=[9, 6, 7])
    method = mx.CausalTracing("attn_out", n_noise=1, window=2, metric="logit_diff")
    wave, hooked, small = (
        method(model, batch, execution=execution).data["per_example"].values
        for execution in (mx.Execution("wave"), mx.Execution("hooked"), mx.Execution("wave", tokens_per_wave=50))
    )
    np.testing.assert_allclose(wave, hooked, atol=2e-5)
    np.testing.assert_allclose(small, hooked, atol=2e-5)


def test_no_noise_changes_nothing(model_of, subjects):
    model = model_of("gpt2")
    result = mx.CausalTracing("resid_pre", n_noise=1, noise=0.0)(model, subjects(model))
    np.testing.assert_allclose(result.data["baseline_corrupted"], result.data["baseline_clean"], atol=1e-6)
    assert np.isnan(result.data["recovered"].values).all(), "nothing was lost, so nothing can be recovered"
    assert any("nothing can be recovered" in note for note in result.info.notes)


def test_the_batchs_corrupted_prompts_are_not_used(model_of, subjects):
    model = model_of("gpt2")
    batch = subjects(model)
    other = mx.ContrastBatch.from_tokens(
        batch.clean,
        batch.clean.flip(1),
        batch.answers,
        batch.wrong,
        roles={k: v for k, v in batch.roles.items() if k != "END"},
    )
    method = mx.CausalTracing("resid_pre", n_noise=1)
    np.testing.assert_array_equal(method(model, batch).data["per_example"], method(model, other).data["per_example"])


def test_refused(model_of, pairs, subjects):
    model = model_of("gpt2")
    with pytest.raises(ConfigError, match=r"n_noise is 0: it must be at least 1"):
        mx.CausalTracing(n_noise=0)
    with pytest.raises(ConfigError, match="window is 0"):
        mx.CausalTracing(window=0)
    with pytest.raises(ConfigError, match="sweeps layers"):
        mx.CausalTracing(over=("pos",), layers=(1,))
    with pytest.raises(ConfigError, match=r"noise|standard deviation"):
        mx.CausalTracing(noise=-1.0)(model, subjects(model))
    with pytest.raises(SiteError, match=r"Unknown subject role 'SUBJECT'"):
        mx.CausalTracing()(model, pairs(model))
    with pytest.raises(SiteError, match="Did you mean 'SUBJECT'"):
        mx.CausalTracing(subject="SUBJCT")(model, subjects(model))
