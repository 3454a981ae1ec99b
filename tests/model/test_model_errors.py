"""Errors for sites, heads, layers and tokens that a model does not have."""

import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ModelSupportError, ShapeError, SiteError
from mechxai.core.site_table import SITES
from tests.conftest import FOLDED, MODELS
from tests.model.observed import tokens_of


def refused(model, name, **settings):
    site = mx.Site(name, 0 if SITES[name].has_layer else None)
    with pytest.raises((SiteError, ModelSupportError)) as reading:
        model.cache(tokens_of(model), [name], **settings)
    with pytest.raises((SiteError, ModelSupportError)):
        model.logits(tokens_of(model), interventions=[mx.Intervention(site, mx.ZeroAblate())])
    return str(reading.value)


@pytest.mark.parametrize(("kind", "backend", "processing"), MODELS)
def test_sites_that_a_model_lacks(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    if kind == "neox":
        assert "attention and MLP read the same residual stream" in refused(model, "resid_mid")
    if kind != "gpt2":
        assert "has no site pos_embed" in refused(model, "pos_embed")
    with pytest.raises(SiteError, match=r"Layer 3 is out of range: this model has 3 layers \(0-2\)"):
        model.cache(tokens_of(model), ["z"], layers=[3])
    with pytest.raises(SiteError, match=r"Head 4 is out of range: this model has 4 heads \(0-3\)"):
        model.logits(tokens_of(model), interventions=[mx.Intervention(mx.Site("q", 0, head=4), mx.ZeroAblate())])
    if kind == "llama":
        with pytest.raises(
            SiteError, match=r"Key/value head 2 is out of range: this model has 2 key/value heads \(0-1\)"
        ):
            model.logits(tokens_of(model), interventions=[mx.Intervention(mx.Site("k", 0, head=2), mx.ZeroAblate())])
    with pytest.raises(SiteError, match="Neuron 999"):
        model.logits(
            tokens_of(model), interventions=[mx.Intervention(mx.Site("mlp_post", 0, neuron=999), mx.ZeroAblate())]
        )


@pytest.mark.parametrize(("kind", "backend", "processing"), [one for one in FOLDED if one[0] == "neox"])
@pytest.mark.parametrize("name", ["resid_mid", "pos_embed"])
def test_what_is_refused_is_not_among_what_is_allowed(model_of, kind, backend, processing, name):
    allowed = refused(model_of(kind, backend, processing), name).split("Allowed: ")[1]
    assert "resid_pre" in allowed
    assert not {"resid_mid", "pos_embed"} & set(allowed.rstrip(".").split(", "))


def test_bert_patterns_may_be_read_but_not_edited(model_of):
    model = model_of("bert")
    tokens = tokens_of(model)
    pattern = model.cache(tokens, ["pattern"], layers=[0])["pattern", 0]
    torch.testing.assert_close(pattern.sum(-1), torch.ones(2, 4, 9))
    with pytest.raises(
        ModelSupportError, match=r"shows a copy there, and edits have no effect.*Use resid_pre, attn_out"
    ):
        model.logits(tokens, interventions=[mx.Intervention(mx.Site("pattern", 0), mx.ZeroAblate())])
    for name in ("resid_mid", "result"):
        assert "post-norm blocks" in refused(model, name)


@pytest.mark.parametrize("name", ["resid_mid", "mlp_out", "mlp_pre", "mlp_post", "ln2_scale"])
def test_attention_only_models_have_no_mlps(name):
    model = mx.load("zoo/handmade-induction", device="cpu")
    with pytest.raises(SiteError, match="an attention-only model"):
        model.cache(torch.tensor([[1, 5, 6]]), [name])


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        (torch.full((1, 65), 11), "The prompts have 65 tokens: gpt2 reads up to n_ctx=64"),
        (
            torch.tensor([[11, 100_000]]),
            "Token id 100000 is outside the vocabulary of gpt2. Allowed: 0 to 408.*this model's tokenizer",
        ),
        (torch.tensor([[11, -1]]), "Token id -1 is outside the vocabulary"),
    ],
)
def test_tokens_that_cannot_be_read_are_refused(model_of, tokens, reason):
    with pytest.raises(ShapeError, match=reason):
        model_of("gpt2").logits(tokens)
