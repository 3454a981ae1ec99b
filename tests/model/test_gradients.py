"""Gradients equal those of autograd on the Hugging Face model and finite differences."""

import pytest
import torch
import transformers

import mechxai as mx
from tests.conftest import FOLDED
from tests.model.observed import ALL_MODELS, state, tokens_of


def logit_of_7(logits):
    return logits[:, -1, 7].sum() - logits[:, 3, 11].sum()


@pytest.mark.parametrize(("kind", "backend", "processing"), [one for one in ALL_MODELS if one[2] == "raw"])
def test_gradients_of_embeddings_equal_autograd_on_hugging_face(model_of, checkpoint, kind, backend, processing):
    model = model_of(kind, backend, processing)
    tokens = tokens_of(model)
    auto = transformers.AutoModelForMaskedLM if kind == "bert" else transformers.AutoModelForCausalLM
    theirs = auto.from_pretrained(checkpoint(kind), attn_implementation="eager").eval()
    # BERT's `embed` is, as TransformerLens has it, the sum of all embeddings behind their LayerNorm
    place = theirs.bert.embeddings if kind == "bert" else theirs.get_input_embeddings()
    held = []
    handle = place.register_forward_hook(
        lambda _module, _given, out: held.append(out.detach().requires_grad_()) or held[0]
    )
    logit_of_7(theirs(tokens).logits).backward()
    handle.remove()
    acts, grads = model.gradients(tokens, [mx.Site("embed")], logit_of_7)
    torch.testing.assert_close(acts["embed"], held[0].detach(), atol=1e-5, rtol=0)
    assert held[0].grad.abs().max() > 1e-2
    torch.testing.assert_close(grads["embed"], held[0].grad, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
@pytest.mark.parametrize(
    "name", ["resid_pre", "resid_mid", "resid_post", "z", "q", "k", "v", "pattern", "mlp_post", "attn_out", "mlp_out"]
)
@pytest.mark.parametrize("layer", [0, 2])
def test_gradients_equal_finite_differences(model_of, kind, backend, processing, name, layer):
    if kind == "neox" and name == "resid_mid":
        pytest.skip("parallel blocks have none")
    model = model_of(kind, backend, processing, "float64")
    tokens, site = tokens_of(model, (1, 6)), mx.Site(name, layer)
    _, grads = model.gradients(tokens, [site], logit_of_7)
    value = model.cache(tokens, [name], layers=[layer])[name, layer]
    direction = torch.randn(value.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    if name == "pattern":
        direction = direction.tril()

    def score(step):
        moved = {site: value + step * direction}
        patch = mx.Patch(mx.Activations(moved, layout))
        return float(logit_of_7(model.logits(tokens, interventions=[mx.Intervention(site, patch)])))

    from mechxai.core.batch import Layout

    layout = Layout(torch.tensor([6]))
    # Hugging Face's RMSNorm computes in float32 whatever the model's dtype: wider steps, wider bounds
    rough = kind == "llama" and backend == "bridge"
    step, bounds = (3e-3, {"rel": 5e-3, "abs": 3e-3}) if rough else (1e-4, {"rel": 1e-4, "abs": 1e-6})
    slope = (score(step) - score(-step)) / (2 * step)
    assert abs(slope) > 1e-4, "the direction must matter"
    assert float((grads[name, layer] * direction).sum()) == pytest.approx(slope, **bounds)


def test_gradients_at_several_sites_in_any_order(model_of):
    model = model_of("gpt2")
    tokens = tokens_of(model)
    sites = [mx.Site("resid_post", 2), mx.Site("embed"), mx.Site("z", 1)]
    _, together = model.gradients(tokens, sites, logit_of_7)
    for site in sites:
        _, alone = model.gradients(tokens, [site], logit_of_7)
        torch.testing.assert_close(together[site], alone[site], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_gradients_leave_the_model_as_it_was(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    first = next(model.inner.parameters())
    wanted = first.requires_grad
    first.requires_grad_(not wanted)
    try:
        before = state(model)
        model.gradients(tokens_of(model), [mx.Site("resid_pre", 0)], logit_of_7)
        assert state(model) == before
        with torch.no_grad():
            model.gradients(tokens_of(model), [mx.Site("resid_pre", 0)], logit_of_7)
            assert not torch.is_grad_enabled()
    finally:
        first.requires_grad_(wanted)
