"""Activations, edits and gradients through the one door: TransformerLens, Hugging Face, finite differences agree."""

import inspect
import sys
import warnings

import pytest
import torch
import transformers

import mechxai as mx
from mechxai.core.errors import ConfigError, ModelSupportError, NoSpaceError, ShapeError, SiteError
from mechxai.core.site_table import SITES
from mechxai.model.backends.limits import check_tokens
from mechxai.model.backends.memory import available_bytes
from mechxai.model.text import TextCodec
from tests.conftest import FOLDED, MODELS

ALL_MODELS = [*MODELS, ("bert", "auto", "raw"), ("bert", "auto", "folded")]
N_LAYERS = 3


def tokens_of(model, shape=(2, 9), seed=0):
    return torch.randint(10, model.architecture.d_vocab, shape, generator=torch.Generator().manual_seed(seed))


def has(model, name, *, editing=False):
    try:
        model.backend.check(mx.Site(name, 0 if SITES[name].has_layer else None), editing=editing)
    except (SiteError, ModelSupportError):
        return False
    return True


def modules(model):
    """Every module, those that the bridge keeps out of sight included."""
    hidden = getattr(model.inner, "original_model", None)
    return [*model.inner.modules(), *(hidden.modules() if hidden is not None else ())]


def n_hooks(model):
    """Hooks of any kind anywhere in the wrapped object."""
    found = 0
    for module in modules(model):
        found += len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
        found += len(getattr(module, "fwd_hooks", ())) + len(getattr(module, "bwd_hooks", ()))
    return found


def state(model):
    return (
        n_hooks(model),
        [module.training for module in modules(model)],
        [parameter.requires_grad for parameter in model.inner.parameters()],
        [parameter.grad is None for parameter in model.inner.parameters()],
        getattr(model.inner.cfg, "use_attn_result", None),
        torch.is_grad_enabled(),
        list(warnings.filters),
    )


# Reading --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "backend", "processing"), ALL_MODELS)
def test_every_site_is_what_transformer_lens_caches(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    tokens = tokens_of(model)
    names = [name for name in SITES if has(model, name) and name != "result"]
    assert {
        "embed",
        "resid_pre",
        "resid_post",
        "attn_out",
        "mlp_out",
        "q",
        "k",
        "v",
        "z",
        "pattern",
        "mlp_post",
    } <= set(names)
    with torch.no_grad():
        _, theirs = model.inner.run_with_cache(tokens)
    ours = model.cache(tokens, names)
    for site, value in ours.values.items():
        torch.testing.assert_close(value, theirs[site.hook], atol=1e-6, rtol=0, msg=str(site))
        assert value.shape[0] == 2
    for name in names:
        row = SITES[name]
        sizes = {"pos": 9, "dest_pos": 9, "src_pos": 9, "one": 1}
        expected = [2, *(sizes.get(axis) or model.architecture.size(axis) for axis in row.axes)]
        assert list(ours[mx.Site(name, 1 if row.has_layer else None)].shape) == expected, name


@pytest.mark.parametrize(("kind", "backend", "processing"), MODELS)
def test_result_is_z_times_w_o(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    acts = model.cache(tokens_of(model), ["result", "z", "attn_out"], layers=[1])
    written = torch.einsum("bphd,hdm->bphm", acts["z", 1], model.inner.W_O[1].detach())
    torch.testing.assert_close(acts["result", 1], written, atol=1e-5, rtol=0)
    bias = model.inner.b_O[1].detach() if kind != "llama" else 0.0
    torch.testing.assert_close(acts["result", 1].sum(2) + bias, acts["attn_out", 1], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_chosen_layers_and_positions(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    tokens = tokens_of(model)
    everything = model.cache(tokens, ["resid_post", "z", "pattern"])
    chosen = model.cache(tokens, ["resid_post", "pattern"], layers=[2, 0], pos=[0, -2])
    assert set(chosen) == {mx.Site(name, layer) for name in ("resid_post", "pattern") for layer in (0, 2)}
    assert chosen.layers("resid_post") == [0, 2]
    for layer in (0, 2):
        assert torch.equal(chosen["resid_post", layer], everything["resid_post", layer][:, [0, 7]])
        assert torch.equal(chosen["pattern", layer], everything["pattern", layer][:, :, [0, 7]])
    assert torch.equal(chosen[mx.Site("resid_post", 2, pos=7)], everything["resid_post", 2][:, 7])
    assert torch.equal(chosen[mx.Site("resid_post", 2, pos=-2)], everything["resid_post", 2][:, 7])
    assert torch.equal(everything[mx.Site("z", 1, head=3, pos=4)], everything["z", 1][:, 4, 3])
    assert everything.stack("z").shape == (3, 2, 9, 4, 16)
    assert torch.equal(everything.rows(slice(1, 2))["z", 1], everything["z", 1][1:])


def test_roles_and_ends_of_padded_rows(model_of):
    model = model_of("llama")
    tokens, lengths = tokens_of(model), torch.tensor([9, 6])
    acts = model.cache(tokens, ["resid_post"], layers=[1], lengths=lengths)
    end = acts[mx.Site("resid_post", 1, pos=-1)]
    assert torch.equal(end, torch.stack([acts["resid_post", 1][0, 8], acts["resid_post", 1][1, 5]]))


@pytest.mark.parametrize("pos", [[9], [100], [-10], [0, 9]])
def test_positions_beyond_the_row_are_refused(model_of, pos):
    model = model_of("gpt2")
    with pytest.raises((SiteError, ShapeError), match=str(pos[-1])):
        model.cache(tokens_of(model), ["resid_post"], pos=pos)


def test_the_cache_is_a_copy_in_the_dtype_and_on_the_device_asked(model_of):
    model = model_of("gpt2")
    tokens = tokens_of(model)
    half = model.cache(tokens, ["z"], dtype="bfloat16", device="cpu")
    assert half["z", 0].dtype == torch.bfloat16
    assert half["z", 0].device.type == "cpu"
    torch.testing.assert_close(half["z", 0].float(), model.cache(tokens, ["z"])["z", 0], atol=0.05, rtol=0.02)
    first = model.cache(tokens, ["embed"])
    first["embed"].zero_()
    assert model.cache(tokens, ["embed"])["embed"].abs().sum() > 0
    assert not first["embed"].requires_grad
    with pytest.raises(ModelSupportError, match="dtype='int8'"):
        model.cache(tokens, ["z"], dtype="int8")


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_the_estimate_is_what_is_held(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    names = [name for name in SITES if has(model, name)]
    sites = model.wanted(names)
    acts = model.cache(tokens_of(model, (3, 8)), names)
    assert model.cache_bytes((3, 8), sites) == acts.nbytes
    assert model.cache_bytes((3, 8), sites, torch.float16) * 2 == acts.nbytes
    assert model.cache_bytes((1, 10), [mx.Site("resid_pre", 0)]) == 10 * 64 * 4


def free_memory(monkeypatch, n_bytes):
    """Says that so much is free, wherever the library asks."""
    for name, module in list(sys.modules.items()):
        if name.startswith("mechxai.") and getattr(module, "available_bytes", None) in (available_bytes, *FAKED):
            FAKED.append(lambda device: n_bytes)
            monkeypatch.setattr(module, "available_bytes", FAKED[-1])


FAKED = []


def test_more_than_is_free_is_refused_before_the_run(model_of, monkeypatch):
    model = model_of("gpt2")
    tokens = tokens_of(model)
    need = model.cache_bytes((2, 9), model.wanted(["pattern"]))
    free_memory(monkeypatch, need)
    model.cache(tokens, ["pattern"])
    free_memory(monkeypatch, need - 1)
    monkeypatch.setattr(type(model), "forward", lambda *_, **__: pytest.fail("a forward pass was made"))
    with pytest.raises(
        NoSpaceError, match=r"Caching 3 activations of 2 x 9 tokens takes.*GiB are free on cpu.*ActivationStore"
    ):
        model.cache(tokens, ["pattern"])


@pytest.mark.parametrize(("kind", "backend", "processing"), [*FOLDED, ("bert", "auto", "raw")])
def test_the_pass_stops_at_the_last_site(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    tokens, reached = tokens_of(model), []
    points = [model.inner.hook_dict[mx.Site("resid_post", layer).hook] for layer in range(N_LAYERS)]
    handles = [
        point.register_forward_hook(lambda *_, layer=layer: reached.append(layer)) for layer, point in enumerate(points)
    ]
    try:
        model.cache(tokens, ["mlp_out", "z"], layers=[0, 1])
        assert reached == [0], "the pass went on after block 1's last wanted site"
        model.logits(tokens)
        assert reached == [0, 0, 1, 2]
    finally:
        for handle in handles:
            handle.remove()


def test_early_stop_holds_when_a_site_is_named_twice(model_of):
    model = model_of("gpt2")
    reached = []
    handle = model.inner.hook_dict["blocks.2.hook_resid_pre"].register_forward_hook(lambda *_: reached.append(2))
    try:
        acts = model.cache(tokens_of(model), ["mlp_post", "post"], layers=[0])
    finally:
        handle.remove()
    assert len(acts) == 1
    assert not reached


# Editing --------------------------------------------------------------------------------------------------------------


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


# Gradients ------------------------------------------------------------------------------------------------------------


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


# Restoring ------------------------------------------------------------------------------------------------------------


class BoomError(Exception):
    pass


def explode(*_):
    raise BoomError


@pytest.mark.parametrize(("kind", "backend", "processing"), [*FOLDED, ("bert", "auto", "folded")])
def test_an_exception_in_the_middle_leaves_nothing_behind(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    tokens = tokens_of(model)
    model.logits(tokens)  # a bridge installs hooks of its own on its first pass
    model.inner.train()
    model.inner.blocks[1].eval()
    try:
        before = state(model)
        sites = [mx.Site("result", 0)] if kind != "bert" else []
        with pytest.raises(BoomError):
            model.forward(
                tokens, hooks={"blocks.1.attn.hook_z": [explode], "hook_embed": [lambda _: None]}, sites=sites
            )
        assert state(model) == before
        with pytest.raises(BoomError):
            model.gradients(tokens, [mx.Site("z", 0)], explode)
        assert state(model) == before
        model.cache(tokens, ["z"], layers=[0])
        model.logits(tokens)
        assert state(model) == before
        with pytest.raises(KeyError):
            model.forward(tokens, hooks={"hook_embed": [lambda _: None], "blocks.9.attn.hook_z": [explode]})
        assert state(model) == before
    finally:
        model.inner.eval()


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_dropout_is_off_whatever_mode_the_model_is_in(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    tokens = tokens_of(model)
    calm = model.logits(tokens)
    model.inner.train()
    try:
        assert torch.equal(model.logits(tokens), calm)
    finally:
        model.inner.eval()


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_the_users_own_hooks_survive_and_are_obeyed(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    tokens, seen = tokens_of(model), []
    plain = model.logits(tokens)
    point = model.inner.hook_dict["blocks.0.attn.hook_z"]
    point.add_hook(lambda z, hook: seen.append(1) or z * 0)
    try:
        before = n_hooks(model)
        with_theirs = model.logits(tokens)
        zeroed = model.logits(tokens, interventions=[mx.Intervention(mx.Site("z", 0), mx.ZeroAblate())])
        with pytest.raises(BoomError):
            model.forward(tokens, hooks={"blocks.0.attn.hook_z": [explode]})
        model.cache(tokens, ["z"], layers=[0])
        assert n_hooks(model) == before
        assert len(seen) == 4
        assert (with_theirs - plain).abs().max() > 1e-3
        assert torch.equal(with_theirs, zeroed)
    finally:
        model.inner.reset_hooks()
    assert torch.equal(model.logits(tokens), plain)


# Refusals -------------------------------------------------------------------------------------------------------------


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
    with pytest.raises(ModelSupportError, match=r"pattern is a copy, edits have no effect.*Use resid_pre, attn_out"):
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


# Texts in place of tokens ---------------------------------------------------------------------------------------------

TEXTS = ["When Mary and John went to the store", "Then, Tom", "The war lasted from the year 1741"]


@pytest.mark.parametrize(("kind", "backend", "processing"), [*FOLDED, ("bert", "auto", "raw")])
def test_a_padded_list_of_texts_has_the_numbers_of_single_texts(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    together, cached = model(TEXTS), model.cache(TEXTS, ["resid_post", "z"])
    values, gradients = model.gradients(TEXTS, [mx.Site("resid_pre", 1)], lambda logits: logits[:, 0, 7].sum())
    assert torch.equal(together, model.logits(TEXTS))
    for row, text in enumerate(TEXTS):
        tokens, (length,) = model.tokens(text)
        alone = model(text)
        assert alone.shape == (1, length, model.architecture.d_vocab)
        assert torch.equal(alone, model.logits(tokens))
        torch.testing.assert_close(together[row, :length], alone[0], atol=2e-5, rtol=0)
        single = model.cache(text, ["resid_post", "z"])
        for site in single:
            torch.testing.assert_close(cached[site][row, :length], single[site][0], atol=2e-5, rtol=0)
        own_values, own_gradients = model.gradients(
            text, [mx.Site("resid_pre", 1)], lambda logits: logits[:, 0, 7].sum()
        )
        for found, expected in ((values, own_values), (gradients, own_gradients)):
            torch.testing.assert_close(
                found["resid_pre", 1][row, :length], expected["resid_pre", 1][0], atol=2e-5, rtol=0
            )


def test_prompts_that_are_no_texts_are_refused(model_of):
    with pytest.raises(ConfigError, match=r"texts or a tensor of token ids \[batch, pos\], not a list of int"):
        inspect.unwrap(TextCodec.texts)(model_of("gpt2").text, [11, 12])
    with pytest.raises(ShapeError, match=r"not int64 \[3\]\. Add a batch dimension with tokens\[None\]"):
        check_tokens(torch.tensor([1, 2, 3]), model_of("gpt2").architecture, "gpt2")


def test_models_show_themselves_in_a_few_lines(model_of):
    box = mx.black_box(lambda texts: [[0.0] * 9 for _ in texts], [f"output {number}" for number in range(9)])
    for model in (model_of("gpt2"), mx.load_classifier("zoo/sentiment", device="cpu"), box):
        for shown in (repr(model), model._repr_html_()):
            assert model.name in shown
            assert model.architecture.family in shown
            assert len(shown.splitlines()) <= 25
    assert "'output 5' and 3 more" in repr(box)
    for part in ("3 layers, 4 heads, d_model 64", model_of("gpt2").backend.name, "folded, float32, cpu"):
        assert part in repr(model_of("gpt2"))


def test_models_with_named_outputs_take_texts():
    model = mx.load_classifier("zoo/sentiment", device="cpu")
    texts = ["a wonderful film", "dull"]
    tokens, lengths = model.tokens(texts)
    assert torch.equal(model(texts), model.logits(tokens, lengths=lengths))
    assert model("dull").shape == (1, 1, len(model.outputs))
