"""Cached activations equal those of TransformerLens, and a pass stops at the last requested site."""

import sys

import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ModelSupportError, NoSpaceError, ShapeError, SiteError
from mechxai.core.site_table import SITES
from mechxai.model.backends.memory import available_bytes
from tests.conftest import FOLDED, MODELS
from tests.model.observed import ALL_MODELS, N_LAYERS, has, tokens_of


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
    model.cache(tokens, ["mlp_out", "z"])  # a bridge's hook points are tried at their first use
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
