"""Interventions equal hooks set by hand, and reach only what attends to them."""

import pytest
import torch

import mechxai as mx
from mechxai.core.errors import SiteError
from tests.conftest import FOLDED, MODELS
from tests.model.observed import state, tokens_of


def by_hand(model, tokens, hook, function):
    with torch.no_grad():
        return model.inner.run_with_hooks(tokens, fwd_hooks=[(hook, function)])


@pytest.mark.parametrize(("kind", "backend", "processing"), MODELS)
def test_interventions_equal_hooks_by_hand(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    tokens = tokens_of(model)
    vector = torch.linspace(-1, 1, 64)
    plain = model.logits(tokens)

    def zero_head(z, hook):
        new = z.clone()
        new[:, :, 2] = 0
        return new

    def steer_at_3(residual, hook):
        new = residual.clone()
        new[:, 3] += 2 * vector
        return new

    def neuron_off(post, hook):
        new = post.clone()
        new[:, :, 5] = 0
        return new

    for site, edit, function in (
        (mx.Site("z", 1, head=2), mx.ZeroAblate(), zero_head),
        (mx.Site("resid_pre", 2, pos=3), mx.Steer(vector, 2.0), steer_at_3),
        (mx.Site("mlp_post", 0, neuron=5), mx.ZeroAblate(), neuron_off),
    ):
        ours = model.logits(tokens, interventions=[mx.Intervention(site, edit)])
        torch.testing.assert_close(ours, by_hand(model, tokens, site.hook, function), atol=1e-5, rtol=0)
        assert (ours - plain).abs().max() > 1e-4, f"{site}: the edit has no effect"
    assert torch.equal(model.logits(tokens), plain)


@pytest.mark.parametrize(("kind", "backend", "processing"), MODELS)
def test_taking_the_block_out_is_skipping_it(model_of, kind, backend, processing):
    """What resid_mid carries reaches the output whole, past the MLP and through it."""
    model = model_of(kind, backend, processing)
    tokens = tokens_of(model)
    other = tokens.clone()
    other[:, 2] = 11
    source = model.cache(other, ["resid_post", "resid_pre"] + (["resid_mid"] if kind != "neox" else []))
    names = ["resid_pre", "resid_post"] + (["resid_mid"] if kind != "neox" else [])
    for name in names:
        patch = mx.Intervention(mx.Site(name, 1), mx.Patch(source))
        torch.testing.assert_close(
            model.logits(tokens, interventions=[patch]), model.logits(other), atol=1e-5, rtol=0, msg=name
        )


@pytest.mark.parametrize(("kind", "backend", "processing"), [*FOLDED, ("bert", "auto", "raw")])
def test_edits_reach_only_what_can_see_them(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    tokens, lengths = tokens_of(model), torch.tensor([9, 6])
    plain = model.logits(tokens, lengths=lengths)
    edit = mx.Intervention(mx.Site("resid_pre", 1, pos=-1), mx.ZeroAblate())
    changed = (model.logits(tokens, lengths=lengths, interventions=[edit]) - plain).abs().amax(-1) > 1e-5
    if model.architecture.causal:
        assert changed[0].nonzero()[:, 0].tolist() == [8]
        assert changed[1].nonzero()[:, 0].tolist() == [5, 6, 7, 8]
    else:
        assert changed[0].all()
        assert changed[1, :6].all()


def test_several_interventions_and_roles(model_of):
    from mechxai.core.batch import Layout

    model = model_of("gpt2")
    tokens = tokens_of(model)
    layout = Layout(torch.tensor([9, 9]), {"S2": torch.tensor([2, 5])})
    edits = [
        mx.Intervention(mx.Site("z", 0, head=1, pos="S2"), mx.ZeroAblate()),
        mx.Intervention(mx.Site("z", 0, head=3), mx.ZeroAblate()),
    ]

    def both(z, hook):
        new = z.clone()
        new[0, 2, 1] = 0
        new[1, 5, 1] = 0
        new[:, :, 3] = 0
        return new

    ours = model.logits(tokens, layout=layout, interventions=edits)
    torch.testing.assert_close(ours, by_hand(model, tokens, "blocks.0.attn.hook_z", both), atol=1e-6, rtol=0)
    with pytest.raises(SiteError, match="Unknown role 'S3'"):
        model.logits(tokens, layout=layout, interventions=[mx.Intervention(mx.Site("z", 0, pos="S3"), mx.ZeroAblate())])


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_result_can_be_edited_and_its_flag_is_put_back(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    tokens, before = tokens_of(model), state(model)
    by_result = model.logits(tokens, interventions=[mx.Intervention(mx.Site("result", 1, head=2), mx.ZeroAblate())])
    by_z = model.logits(tokens, interventions=[mx.Intervention(mx.Site("z", 1, head=2), mx.ZeroAblate())])
    torch.testing.assert_close(by_result, by_z, atol=1e-5, rtol=0)
    assert state(model) == before


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_functions_at_hooks_outside_the_table(model_of, kind, backend, processing):
    """`forward` takes TransformerLens' hook names, not only those of our sites."""
    model = model_of(kind, backend, processing)
    seen = []
    model.forward(tokens_of(model), hooks={"unembed.hook_in": [lambda residual: seen.append(tuple(residual.shape))]})
    assert seen == [(2, 9, 64)]
