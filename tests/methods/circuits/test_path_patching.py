"""Path patching against three runs by hand, against exact edges, and on a known circuit's paths."""

import numpy as np
import pytest

import mechxai as mx
from mechxai.core.activations import Activations
from mechxai.core.errors import ConfigError, ModelSupportError, SiteError
from mechxai.core.metric import LogitDiff
from mechxai.core.site import Site
from tests.conftest import FOLDED

LENGTHS = [9, 7]


def by_hand(model, batch, sender, receiver, freeze):
    """The three runs of Wang et al.: patch the sender, other heads frozen; save the receiver's input; patch it in."""
    own, other = (
        model.cache(batch.tokens(run), ["z", "mlp_out"], lengths=batch.lengths) for run in ("clean", "corrupted")
    )
    layer, head = sender
    kept = []
    for name in ("z", *(["mlp_out"] if freeze == "all" else [])):
        for at in range(model.architecture.n_layers):
            values = own[name, at].clone()
            if name == "z" and at == layer:
                values[:, :, head] = other["z", at][:, :, head]
            kept.append(mx.Intervention(Site(name, at), mx.Patch(Activations({Site(name, at): values}, batch.layout))))
    moved = model.cache(batch.clean, [receiver.name], [receiver.layer], lengths=batch.lengths, interventions=kept)
    edit = mx.Intervention(receiver, mx.Patch(moved))
    metric = LogitDiff()
    plain, patched = (model.logits(batch.clean, layout=batch.layout, interventions=one) for one in ([], [edit]))
    return (metric(plain, batch) - metric(patched, batch)).numpy()


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
@pytest.mark.parametrize("freeze", ["heads", "all"])
def test_three_runs_by_hand(model_of, pairs, kind, backend, processing, freeze):
    model = model_of(kind, backend, processing)
    batch = pairs(model, lengths=LENGTHS, first=3)
    grouped = model.architecture.n_kv_heads < model.architecture.n_heads
    receivers = {"a2.h3.q": Site("q", 2, head=3), "a2.g1.k" if grouped else "a2.h1.k": Site("k", 2, head=1)}
    found = mx.PathPatching(["a0.h1", "a1.h2"], list(receivers), freeze=freeze)(model, batch).data
    for name, site in receivers.items():
        for layer, head in ((0, 1), (1, 2)):
            expected = by_hand(model, batch, (layer, head), site, freeze)
            ours = found["per_example"].sel(edge=f"a{layer}.h{head} -> {name}").values
            np.testing.assert_allclose(ours, expected, atol=2e-4, err_msg=f"{layer}.{head} to {name}")
    assert np.abs(found["value"]).max() > 1e-4


def test_with_all_nodes_frozen_a_path_is_an_edge(model_of, pairs):
    model = model_of("llama")
    batch = pairs(model, lengths=LENGTHS, first=3)
    for direction in ("noise", "denoise"):
        edges = mx.EdgePatching(direction=direction)(model, batch).data["value"]
        paths = mx.PathPatching(["*"], ["*"], freeze="all", direction=direction)(model, batch).data["value"]
        assert paths.sizes["edge"] == edges.sizes["edge"]
        np.testing.assert_allclose(paths, edges.sel(edge=paths["edge"]), atol=1e-5)


def test_mlps_between_sender_and_receiver_matter(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model)
    heads, everything = (mx.PathPatching(["a0.*"], freeze=one)(model, batch).data["value"] for one in ("heads", "all"))
    assert np.abs(heads - everything).max() > 1e-3


def test_paths_to_the_logits_without_mlps_are_direct_effects():
    """In an attention-only model nothing is recomputed between a head and the logits."""
    model = mx.load("zoo/handmade-ioi", device="cpu")
    batch = mx.tasks.ioi(model, n=6)
    heads, everything = (mx.PathPatching(["a*"], freeze=one)(model, batch).data for one in ("heads", "all"))
    np.testing.assert_allclose(heads["value"], everything["value"], atol=1e-5)
    assert float(heads["recovered"].sel(edge="a2.h2 -> logits")) == pytest.approx(1, abs=1e-3)
    assert abs(float(heads["recovered"].sel(edge="a1.h3 -> logits"))) < 1e-3, "its effect goes through the name mover"


def test_the_s_inhibition_head_acts_through_the_name_movers_queries():
    model = mx.load("zoo/handmade-ioi", device="cpu")
    data = mx.PathPatching(["a1.*"], ["a2.h2.q", "a2.h2.k"])(model, mx.tasks.ioi(model, n=6)).data["recovered"]
    assert float(data.sel(edge="a1.h3 -> a2.h2.q")) > 0.9
    assert np.abs(data.drop_sel(edge="a1.h3 -> a2.h2.q")).max() < 0.05


def test_names_match_several_nodes(model_of, pairs):
    model = model_of("gpt2")
    data = mx.PathPatching(["a0.*", "embed"], ["a1.h0", "m1"])(model, pairs(model)).data
    assert set(data["src"].values) == {"embed", "a0.h0", "a0.h1", "a0.h2", "a0.h3"}
    assert set(data["dest"].values) == {"a1.h0.q", "a1.h0.k", "a1.h0.v", "m1"}
    assert data.sizes["edge"] == 20


def test_refused(model_of, pairs):
    model = model_of("gpt2")
    with pytest.raises(SiteError, match=r"a0\.h3"):
        mx.PathPatching(["a0.h4"])(model, pairs(model))
    with pytest.raises(SiteError, match="receiver"):
        mx.PathPatching(receivers=["logit"])(model, pairs(model))
    with pytest.raises(ConfigError, match="no sender before"):
        mx.PathPatching(["m2"], ["a0.h0"])(model, pairs(model))
    with pytest.raises(ConfigError, match="heads"):
        mx.PathPatching(freeze="mlps")
    with pytest.raises(ConfigError, match="Give names"):
        mx.PathPatching(senders=())
    with pytest.raises(ModelSupportError, match="attention is not causal"):
        mx.PathPatching()(model_of("bert"), pairs(model_of("bert")))
