"""AtP*: recomputed patterns against the model's, dropped gradients against edges, both against exact patching."""

import numpy as np
import pytest

import mechxai as mx
from mechxai.core.activations import Activations
from mechxai.core.errors import ConfigError, ModelSupportError
from mechxai.core.metric import as_metric
from tests.conftest import FOLDED

LENGTHS = [9, 7]


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
@pytest.mark.parametrize("site", ["q", "k"])
def test_fixed_scores_are_slopes_towards_the_patched_pattern(model_of, pairs, kind, backend, processing, site):
    """Slopes towards the pattern that the model computes from a patched query or key, for heads and positions."""
    if (kind, backend) == ("llama", "bridge"):
        pytest.skip("its RMSNorm works in float32, too coarse for slopes")
    model = model_of(kind, backend, processing, "float64")
    batch = pairs(model, lengths=LENGTHS, first=3)
    method = mx.AttributionPatching(site, ("layer", "head", "pos"), layers=[1], pos=[3, 6], qk_fix=True)
    whole = mx.AttributionPatching(site, ("layer", "head"), layers=[1], qk_fix=True)(model, batch).data
    found = method(model, batch).data["per_example"].values
    metric = as_metric("logit_diff")
    theirs = model.cache(batch.clean, [site], [1], lengths=batch.lengths)
    pattern = mx.Site("pattern", 1)
    usual = model.cache(batch.corrupted, ["pattern"], [1], lengths=batch.lengths)[pattern]
    start = metric(model.logits(batch.corrupted, layout=batch.layout), batch)
    for head in (0, found.shape[2] - 1):
        for pos in (None, 3, 6):
            put = mx.Intervention(mx.Site(site, 1, head=head, pos=pos), mx.Patch(theirs))
            patched = model.cache(batch.corrupted, ["pattern"], [1], lengths=batch.lengths, interventions=[put])[
                pattern
            ]
            step = 1e-5
            moved = mx.Patch(Activations({pattern: usual + step * (patched - usual)}, batch.layout))
            logits = model.logits(batch.corrupted, layout=batch.layout, interventions=[mx.Intervention(pattern, moved)])
            slope = ((metric(logits, batch) - start) / step).numpy()
            own = whole["per_example"].values[:, 0, head] if pos is None else found[:, 0, head, (3, 6).index(pos)]
            np.testing.assert_allclose(own, slope, atol=2e-4, rtol=2e-3)


@pytest.mark.parametrize("site", ["q", "k"])
def test_fixed_scores_are_exact_where_everything_after_the_pattern_is_linear(site):
    """In the last layer of a model without norms, where a plain gradient through a sharp softmax is far off."""
    model = mx.load("zoo/handmade-ioi", device="cpu")
    batch = mx.tasks.ioi(model, n=8)
    settings = {"over": ("layer", "head"), "layers": [2]}
    exact = mx.ActivationPatching(site, **settings)(model, batch).data
    moved = (exact["per_example"] - exact["baseline_corrupted"]).mean("prompt").values
    fixed = mx.AttributionPatching(site, **settings, qk_fix=True)(model, batch).data["value"].values
    plain = mx.AttributionPatching(site, **settings)(model, batch).data["value"].values
    np.testing.assert_allclose(fixed, moved, atol=1e-3)
    if site == "q":
        assert np.abs(moved).max() > 1
        assert np.abs(plain - moved).max() > 0.1 * np.abs(moved).max()


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_dropped_gradients_agree_with_edges(model_of, pairs, kind, backend, processing):
    """In three layers: dropping another layer leaves all of the last layer's effect, and the second's direct effect."""
    model = model_of(kind, backend, processing)
    assert model.architecture.n_layers == 3
    batch = pairs(model, lengths=LENGTHS, first=3)
    site, over, name = (
        ("mlp_out", ("layer",), "m1")
        if kind != "neox"
        else ("z", ("layer", "head"), "a1.h2")  # what no MLP of it reads
    )
    plain, dropped = (mx.AttributionPatching(site, over, grad_drop=drop)(model, batch).data for drop in (False, True))
    full, sizes = np.abs(plain["per_example"].values), dropped["per_example"].values
    np.testing.assert_allclose(sizes[:, 2], full[:, 2], atol=2e-4)
    edges = mx.EdgeAttribution("eap", direction="denoise")(model, batch).data["per_example"]
    direct = np.abs(edges.sel(edge=f"{name} -> logits").values)
    place = (slice(None), 1) if site == "mlp_out" else (slice(None), 1, 2)
    np.testing.assert_allclose(sizes[place], (full[place] + direct) / 2, atol=2e-4)
    assert (sizes >= 0).all()
    assert "recovered" not in dropped
    assert "recovered" in plain


def test_both_together_rank_heads_as_exact_patching_does():
    model = mx.load("zoo/planted-ioi", device="cpu")
    batch = mx.tasks.ioi(model, n=16)
    over = ("layer", "head")
    exact = np.abs(mx.ActivationPatching("q", over)(model, batch).data["recovered"].values)
    star = mx.AttributionPatching("q", over, qk_fix=True, grad_drop=True)(model, batch)
    plain = mx.AttributionPatching("q", over)(model, batch).data["value"].values
    highest, found, missed = (np.argsort(-np.abs(one).ravel()) for one in (exact, star.data["value"].values, plain))
    assert set(highest[:3].tolist()) < set(found[:4].tolist())
    assert not set(highest[:3].tolist()) & set(missed[:4].tolist()), "saturated patterns hide them from a gradient"
    assert star.info.cost["backward_passes"] == 3 * 16


def test_refused(model_of, pairs):
    with pytest.raises(ConfigError, match="site=q or site=k"):
        mx.AttributionPatching("z", qk_fix=True)
    bert = model_of("bert")
    with pytest.raises(ModelSupportError, match="qk_fix=false"):
        mx.AttributionPatching("q", qk_fix=True)(bert, pairs(bert))
