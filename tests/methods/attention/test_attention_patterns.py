"""Attention patterns equal Hugging Face's and the softmax of queries times keys, on every architecture."""

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ConfigError, SiteError
from tests.conftest import MODELS


@pytest.mark.parametrize(("kind", "backend", "processing"), MODELS)
def test_queries_times_keys_make_the_pattern(model_of, pairs, kind, backend, processing):
    model = model_of(kind, backend, processing)
    batch = pairs(model, n=2, width=8, lengths=[8, 6])
    data = mx.AttentionPatterns()(model, batch).data
    a = model.architecture
    assert data["pattern"].shape == (2, a.n_layers, a.n_heads, 8, 8)
    query, key = (torch.from_numpy(data[name].values) for name in ("query", "key"))
    assert query.shape == key.shape == (2, a.n_layers, a.n_heads, 8, a.d_head)
    scores = float(data["scale"]) * query @ key.transpose(-1, -2)
    made = scores.masked_fill(torch.ones(8, 8, dtype=torch.bool).triu(1), -torch.inf).softmax(-1).numpy()
    pattern = data["pattern"].values
    assert pattern[0] == pytest.approx(made[0], abs=1e-4)
    assert pattern[1, :, :, :6, :6] == pytest.approx(made[1, :, :, :6, :6], abs=1e-4)
    assert np.isnan(pattern[1, :, :, 6:]).all()
    assert np.isnan(pattern[1, :, :, :, 6:]).all()


def test_patterns_equal_hugging_faces(model_of, checkpoint, pairs):
    from transformers import AutoModelForCausalLM

    model = model_of("llama")
    batch = pairs(model, n=2, width=7)
    hf = AutoModelForCausalLM.from_pretrained(checkpoint("llama"), attn_implementation="eager").eval()
    expected = torch.stack(hf(batch.clean, output_attentions=True).attentions, 1).detach().numpy()
    assert mx.AttentionPatterns()(model, batch).data["pattern"].values == pytest.approx(expected, abs=1e-5)


def test_masked_models_have_patterns_too(model_of):
    model = model_of("bert")
    batch = mx.tasks.prompts(model, texts=["The capital of [MASK] is Paris."])
    data = mx.AttentionPatterns()(model, batch).data
    assert data["pattern"].sum("src_pos").values == pytest.approx(1, abs=1e-5)
    scores = float(data["scale"]) * torch.from_numpy(data["query"].values @ data["key"].values.swapaxes(-1, -2))
    assert data["pattern"].values == pytest.approx(scores.softmax(-1).numpy(), abs=1e-4)


def test_some_layers_and_heads_of_the_corrupted_run(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model)
    some = mx.AttentionPatterns(layers=(-1, 0), heads=(2,), run="corrupted", queries=False)(model, batch).data
    every = mx.AttentionPatterns(run="corrupted")(model, batch).data
    assert some["layer"].values.tolist() == [0, 2]
    assert "query" not in some
    assert some["pattern"].values == pytest.approx(every["pattern"].sel(layer=[0, 2], head=[2]).values, abs=1e-6)


@pytest.mark.parametrize(("settings", "message"), [({"layers": (3,)}, "Layer 3"), ({"heads": (-5,)}, "Head -5")])
def test_unknown_layers_and_heads_are_refused(model_of, pairs, settings, message):
    model = model_of("gpt2")
    with pytest.raises(SiteError, match=message):
        mx.AttentionPatterns(**settings)(model, pairs(model))


def test_an_unknown_run_is_refused():
    with pytest.raises(ConfigError, match="Did you mean 'corrupted'"):
        mx.AttentionPatterns(run="corrupt")
