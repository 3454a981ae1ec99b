"""Models that route tokens to experts: integrated gradients that cannot add up are refused, neurons too."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM

import mechxai as mx
from mechxai.core.errors import NumericsError, SiteError
from tests.checkpoints import byte_pair_tokenizer


def mixtral(folder, *, per_token):
    """A tiny Mixtral of four experts."""
    torch.manual_seed(0)
    tokenizer = byte_pair_tokenizer()
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = MixtralConfig(
        vocab_size=len(tokenizer),
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=per_token,
        max_position_embeddings=64,
        sliding_window=None,
        **sizes,
    )
    model = MixtralForCausalLM(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2) if parameter.dim() > 1 else None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    """Two of four experts per token."""
    return mixtral(tmp_path_factory.mktemp("sparse"), per_token=2)


def routing(folder, batch, share):
    """The experts that Hugging Face chooses at a point of the path from zero embeddings to the prompt's."""
    hf = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        embeddings = share * hf.get_input_embeddings()(batch.clean[:1])
        logits = hf(inputs_embeds=embeddings, output_router_logits=True).router_logits
    return torch.stack([layer.topk(2).indices.sort().values for layer in logits])


def test_scores_that_miss_a_jump_of_the_routing_are_refused(sparse, pairs):
    model = mx.load(str(sparse), device="cpu")
    assert model.architecture.n_experts == 4
    batch = pairs(model, n=2)
    assert (routing(sparse, batch, 0.05) != routing(sparse, batch, 1.0)).any(), "the routing changes along the path"
    method = mx.IntegratedGradients(baseline="zero", n_steps=8, max_steps=16)
    with pytest.raises(
        NumericsError, match=r"sum to .* but the score changes by .* routes tokens to experts.*kernel_shap"
    ):
        method(model, batch)
    shap = mx.KernelShap(n_samples=40, baseline="zero")(model, batch).data
    total = np.nansum(shap["value"].values, 1)
    np.testing.assert_allclose(total, (shap["target_score"] - shap["baseline_score"]).values, atol=1e-4)


def test_a_model_that_uses_all_experts_adds_up(tmp_path, pairs):
    model = mx.load(str(mixtral(tmp_path / "all", per_token=4)), device="cpu")
    data = mx.IntegratedGradients(n_steps=50)(model, pairs(model, n=1)).data
    change = (data["target_score"] - data["baseline_score"]).values
    assert np.abs(data["delta"].values) <= 0.05 * np.abs(change)


@pytest.mark.parametrize("site", ["mlp_pre", "mlp_post"])
def test_neurons_of_experts_are_refused_with_the_reason(sparse, site):
    model = mx.load(str(sparse), device="cpu")
    with pytest.raises(SiteError, match=r"4 expert MLPs.*mlp_out"):
        model.cache(torch.tensor([[5, 6, 7]]), [site])
    assert model.cache(torch.tensor([[5, 6, 7]]), ["mlp_out"])["mlp_out", 0].shape == (1, 3, 64)


def test_dense_models_have_no_experts(model_of):
    assert model_of("gpt2").architecture.n_experts == 0
    assert model_of("llama").architecture.n_experts == 0
