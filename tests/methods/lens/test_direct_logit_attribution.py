"""Direct logit attribution: each component by hand, and the components sum to the logit difference."""

from typing import get_args

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ConfigError, ModelSupportError, NumericsError, ShapeError
from mechxai.core.metric import LogitDiff
from mechxai.methods.lens import direct_logit_attribution as module
from tests.conftest import MODELS

KINDS = get_args(module.SplitBy)


@pytest.mark.parametrize(("kind", "backend", "processing"), MODELS)
def test_parts_sum_to_the_logit_difference(model_of, pairs, kind, backend, processing):
    model = model_of(kind, backend, processing)
    batch = pairs(model, n=3, lengths=[9, 6, 7], first=3)
    right = LogitDiff()(model.logits(batch.clean, lengths=batch.lengths), batch)
    found = {by: mx.DirectLogitAttribution(by)(model, batch).data for by in KINDS}
    for by, data in found.items():
        np.testing.assert_allclose(data["logit_diff"], right.numpy(), atol=1e-4)
        np.testing.assert_allclose(data["value"].values.sum(1), data["logit_diff"].values, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(data["residual_error"], 0, atol=1e-4)
        assert len(set(data["component"].values)) == data.sizes["component"], by
    a = model.architecture
    by_layer, by_head, by_neuron = (found[by]["value"].to_pandas() for by in ("layer", "head", "neuron"))
    for layer in range(a.n_layers):
        heads = by_head[[f"a{layer}.h{head}" for head in range(a.n_heads)] + [f"a{layer}.bias"]].sum(axis=1)
        np.testing.assert_allclose(heads, by_layer[f"a{layer}"], atol=1e-5)
        neurons = by_neuron[[f"m{layer}.n{neuron}" for neuron in range(a.d_mlp)] + [f"m{layer}.bias"]].sum(axis=1)
        np.testing.assert_allclose(neurons, by_layer[f"m{layer}"], atol=1e-5)
    sources = found["source"]["source_value"]
    assert sources.dims == ("prompt", "layer", "head", "pos")
    for layer in range(a.n_layers):
        for head in range(a.n_heads):
            summed = np.nansum(sources.values[:, layer, head], -1)
            # what a head reads through the bias of its values stands at every source alike
            np.testing.assert_allclose(summed, by_head[f"a{layer}.h{head}"], atol=1e-5)
    assert np.isnan(sources.values[1, :, :, 6:]).all()


def test_a_head_counts_what_its_output_moves_the_logits_under_a_frozen_norm(model_of, pairs):
    """Against TransformerLens' own stack of heads and its norm, scaled by the cached scale."""
    model = model_of("gpt2", "hooked_transformer" if _has_hooked_transformer() else "bridge")
    batch = pairs(model, n=2)
    data = mx.DirectLogitAttribution("head")(model, batch).data
    _, cache = model.inner.run_with_cache(batch.clean)
    W_U = model.inner.W_U
    along = W_U[:, batch.answers[:, 0, 0]].T - W_U[:, batch.wrong[:, 0, 0]].T
    for layer in range(model.architecture.n_layers):
        z = cache[f"blocks.{layer}.attn.hook_z"][:, -1]
        written = torch.einsum("rhe,hed->rhd", z, model.inner.blocks[layer].attn.W_O)
        centred = (written - written.mean(-1, keepdim=True)) / cache["ln_final.hook_scale"][:, -1][:, None]
        right = torch.einsum("rhd,rd->rh", centred, along)
        names = [f"a{layer}.h{head}" for head in range(4)]
        np.testing.assert_allclose(data["value"].sel(component=names), right.detach().numpy(), atol=1e-5)
        np.testing.assert_allclose(data["head_value"].values[layer], right.detach().numpy().mean(0), atol=1e-5)


def _has_hooked_transformer():
    import transformer_lens

    return int(transformer_lens.__version__.split(".")[0]) < 4 if hasattr(transformer_lens, "__version__") else False


def test_the_name_movers_write_the_answer():
    model = mx.load("zoo/handmade-ioi", device="cpu")
    data = mx.DirectLogitAttribution("source")(model, mx.tasks.ioi(model, n=16, seed=0)).data
    movers = {node["node"] for node in model.card["truth"]["nodes"] if node["role"] == "name_mover"}
    mean = data["mean"].to_pandas()
    assert movers
    np.testing.assert_allclose(mean[sorted(movers)].sum(), data["logit_diff"].values.mean(), rtol=1e-3)


def test_alternatives_count_by_their_mean(model_of, pairs):
    model = model_of("gpt2")
    one = pairs(model, n=2)
    answers = torch.tensor([[[20], [30]], [[40], [-1]]])
    batch = mx.ContrastBatch.from_tokens(one.clean, one.corrupted, answers, one.wrong)
    data = mx.DirectLogitAttribution("layer")(model, batch).data
    right = LogitDiff()(model.logits(batch.clean), batch)
    np.testing.assert_allclose(data["logit_diff"], right.numpy(), atol=1e-5)


def test_an_ablated_head_writes_nothing(model_of, pairs):
    model = model_of("llama")
    batch = pairs(model, n=2, lengths=[9, 7], first=3)
    ablate = mx.Intervention(mx.Site("z", 1, head=2), mx.ZeroAblate())
    data = mx.DirectLogitAttribution("head", interventions=[ablate])(model, batch).data
    np.testing.assert_allclose(data["value"].sel(component="a1.h2"), 0, atol=1e-7)
    assert float(np.abs(data["value"].sel(component="a1.h1")).max()) > 0


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_rounds_and_is_no_error(model_of, pairs, kind, dtype):
    exact, rounded = (model_of(kind, "auto", "folded", one) for one in ("float32", dtype))
    batch = pairs(exact, n=4)
    for by in KINDS:
        found = [mx.DirectLogitAttribution(by)(model, batch).data["value"].values for model in (exact, rounded)]
        np.testing.assert_allclose(found[1], found[0], atol=0.05 * np.abs(found[0]).max())


def test_a_sum_that_does_not_hold_is_an_error(model_of, pairs, monkeypatch):
    model = model_of("gpt2")
    sound = module.pulled_back

    def wrong(*given):
        along, constant = sound(*given)
        return along * 1.01, constant

    monkeypatch.setattr(module, "pulled_back", wrong)
    with pytest.raises(NumericsError, match=r"components sum to .*, but the logit difference is"):
        mx.DirectLogitAttribution("layer")(model, pairs(model))


def test_refused(model_of, pairs):
    with pytest.raises(ConfigError, match=r"by='heads'.*head"):
        mx.DirectLogitAttribution("heads")
    with pytest.raises(ConfigError, match=r"run='both'"):
        mx.DirectLogitAttribution(run="both")
    bert = model_of("bert", "bridge")
    with pytest.raises(ModelSupportError, match=r"normalises what its components write.*lens"):
        mx.DirectLogitAttribution("layer")(bert, pairs(bert))
    model = model_of("gpt2")
    one = pairs(model)
    several = mx.ContrastBatch.from_tokens(one.clean, one.corrupted, torch.tensor([[1, 2], [3, 4]]), one.wrong)
    with pytest.raises(ShapeError, match="one token per answer"):
        mx.DirectLogitAttribution()(model, several)


def test_no_hook_or_flag_is_left(model_of, pairs):
    model = model_of("gpt2")
    mx.DirectLogitAttribution("head")(model, pairs(model))
    assert not any(point.fwd_hooks for point in model.backend.hooks.values())
    assert not getattr(model.inner.cfg, "use_attn_result", False)
