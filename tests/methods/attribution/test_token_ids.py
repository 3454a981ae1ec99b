"""Models that read token ids in later layers too: tokens are replaced, vectors refused; other shapes are named."""

import numpy as np
import pytest
import torch
import transformers

import mechxai as mx
from mechxai.core.errors import ModelSupportError, ShapeError
from mechxai.model.backends.from_embeddings import reads_tokens_later
from tests.checkpoints import byte_pair_tokenizer

if not hasattr(transformers, "Gemma4TextConfig"):
    pytest.skip("needs transformers with Gemma 4", allow_module_level=True)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    """A Gemma 4 with per-layer token embeddings, and heads of another size in its last layer."""
    folder = tmp_path_factory.mktemp("gemma4")
    torch.manual_seed(0)
    tokenizer = byte_pair_tokenizer()
    config = transformers.Gemma4TextConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=10,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        max_position_embeddings=64,
    )
    model = transformers.Gemma4ForCausalLM(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return mx.load(str(folder), device="cpu"), transformers.Gemma4ForCausalLM.from_pretrained(folder).eval()


def hugging_face(hf, batch, tokens):
    """The logit difference of each unpadded prompt."""
    scores = []
    for row, length in enumerate(batch.lengths.tolist()):
        with torch.no_grad():
            logits = hf(tokens[row : row + 1, :length]).logits[0, -1]
        scores.append(float(logits[batch.answers[row, 0, 0]] - logits[batch.wrong[row, 0, 0]]))
    return np.array(scores)


def test_tokens_are_replaced_with_their_per_layer_embeddings(gemma, pairs):
    model, hf = gemma
    assert reads_tokens_later(model)
    batch = pairs(model, n=2, lengths=[9, 7])
    data = mx.KernelShap(n_samples=30, baseline="counterfactual")(model, batch).data
    np.testing.assert_allclose(data["target_score"].values, hugging_face(hf, batch, batch.clean), atol=1e-3)
    np.testing.assert_allclose(data["baseline_score"].values, hugging_face(hf, batch, batch.corrupted), atol=1e-3)
    occlusion = mx.Occlusion(baseline="counterfactual")(model, batch).data["value"].values
    one = batch.clean.clone()
    one[:, 4] = batch.corrupted[:, 4]
    expected = hugging_face(hf, batch, batch.clean) - hugging_face(hf, batch, one)
    np.testing.assert_allclose(occlusion[:, 4], expected, atol=1e-3)


@pytest.mark.parametrize("method", [mx.IntegratedGradients, mx.Saliency, mx.GradientXInput, mx.SmoothGrad])
def test_gradients_in_embeddings_are_refused(gemma, pairs, method):
    model, _ = gemma
    with pytest.raises(ModelSupportError, match="reads the token ids again in later layers"):
        method()(model, pairs(model))


@pytest.mark.parametrize("baseline", ["zero", "mean"])
def test_vectors_are_refused(gemma, pairs, baseline):
    model, _ = gemma
    with pytest.raises(ModelSupportError, match="counterfactual"):
        mx.Occlusion(baseline=baseline)(model, pairs(model))


def test_layers_of_other_shapes_are_named(gemma, pairs):
    model, _ = gemma
    acts = model.cache(pairs(model).clean, ["z"])
    with pytest.raises(ShapeError, match=r"layers 0-1.*512\] in layers 2.*one layer at a time"):
        acts.stack("z")
    assert model.cache(pairs(model).clean, ["z"], layers=[0, 1]).stack("z").shape[0] == 2


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_other_models_read_tokens_once(model_of, kind):
    assert not reads_tokens_later(model_of(kind, "bridge"))
