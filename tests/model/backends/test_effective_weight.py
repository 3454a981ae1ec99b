"""The weight with which a linear layer acts."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D

import mechxai as mx
from mechxai.core.errors import ModelSupportError
from mechxai.model.backends.effective_weight import AffineMemory, effective_affine
from mechxai.model.backends.weight_hash import hash_parameters


class LowRankLinear(nn.Linear):
    """A linear layer with an adapter, as LoRA adds it: ``W x + scaling * B A x``."""

    def __init__(self, d_in: int, d_out: int, *, bias: bool = True) -> None:
        super().__init__(d_in, d_out, bias=bias)
        self.lora_A = nn.Parameter(torch.randn(2, d_in))
        self.lora_B = nn.Parameter(torch.randn(d_out, 2))
        self.scaling = 0.5
        self.dropout = nn.Dropout(0.5)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) + self.scaling * self.dropout(input) @ self.lora_A.T @ self.lora_B.T

    def matrix(self) -> torch.Tensor:
        return (self.weight + self.scaling * self.lora_B @ self.lora_A).T


def test_plain_layers_give_views_of_their_parameters() -> None:
    linear, convolution = nn.Linear(5, 3), Conv1D(3, 5)
    for layer, parameter in ((linear, linear.weight), (convolution, convolution.weight)):
        weight, bias = effective_affine(layer, 5)
        assert weight.shape == (5, 3)
        assert weight.data_ptr() == parameter.data_ptr()
        assert bias is not None
        assert bias.data_ptr() == layer.bias.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [True, False])
def test_an_adapter_counts(dtype: torch.dtype, bias: bool) -> None:
    layer = LowRankLinear(6, 4, bias=bias).to(dtype)
    weight, found = effective_affine(layer, 6)
    tolerance = 8 * torch.finfo(dtype).eps * float(layer.matrix().detach().abs().max())
    torch.testing.assert_close(weight, layer.matrix().detach(), atol=tolerance, rtol=0)
    assert (found is not None) == bias
    assert layer.training  # dropout is off while the weight is measured only
    assert layer.dropout.training


def test_a_replaced_forward_a_hook_and_a_parametrisation_count() -> None:
    replaced, hooked, scaled = nn.Linear(5, 3), nn.Linear(5, 3, bias=False), nn.Linear(5, 3)
    original = replaced.forward
    replaced.forward = lambda x: 2 * original(x)  # type: ignore[method-assign]
    hooked.register_forward_hook(lambda *run: -run[-1])
    nn.utils.parametrizations.weight_norm(scaled)
    weight, bias = effective_affine(replaced, 5)
    torch.testing.assert_close(weight, 2 * replaced.weight.T.detach())
    torch.testing.assert_close(bias, 2 * replaced.bias.detach())
    torch.testing.assert_close(effective_affine(hooked, 5)[0], -hooked.weight.T.detach())
    torch.testing.assert_close(effective_affine(scaled, 5)[0], scaled.weight.T.detach())


@pytest.mark.parametrize(
    "layer",
    [
        nn.Sequential(nn.Linear(5, 4), nn.Tanh()),
        nn.Sequential(nn.Linear(5, 4), nn.Hardtanh(-20, 20)),
        nn.LayerNorm(5),
        nn.Linear(6, 4),
        nn.Embedding(5, 4),
    ],
)
def test_what_is_not_linear_is_refused(layer: nn.Module) -> None:
    with pytest.raises(ModelSupportError):
        effective_affine(layer, 5)


def test_a_measured_weight_is_measured_again_after_a_change() -> None:
    layer, memory = LowRankLinear(6, 4), AffineMemory()
    first = memory(layer, 6)[0]
    assert memory(layer, 6)[0] is first
    layer.scaling = 0.51
    torch.testing.assert_close(memory(layer, 6)[0], layer.matrix().detach())
    layer.weight.data *= 2
    torch.testing.assert_close(memory(layer, 6)[0], layer.matrix().detach())


def test_a_hash_changes_with_an_adapters_scale_and_state() -> None:
    torch.manual_seed(0)
    layer = LowRankLinear(6, 4)
    hashes = {hash_parameters(nn.Sequential(layer))}
    for change in ({"scaling": 0.7}, {"scaling": 0.7, "merged": True}, {"scale_of": {"default": 2.0}}):
        vars(layer).update(change)
        hashes.add(hash_parameters(nn.Sequential(layer)))
    assert len(hashes) == 4
    layer.eval()
    assert hash_parameters(nn.Sequential(layer)) in hashes


@pytest.fixture
def adapted_and_merged(checkpoint: Callable[[str], Path]) -> tuple[mx.HookedModel, mx.HookedModel]:
    """A Llama with adapters in several layers, and the same model with the adapters added to its weights."""
    bridge = pytest.importorskip("transformer_lens.model_bridge").TransformerBridge
    folder = checkpoint("llama")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    merged = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    adapted = copy.deepcopy(merged)
    torch.manual_seed(1)
    for name, layer in list(adapted.named_modules()):
        if name.endswith(("q_proj", "o_proj", "down_proj", "lm_head")):
            low_rank = LowRankLinear(layer.in_features, layer.out_features, bias=False)
            low_rank.load_state_dict(layer.state_dict(), strict=False)
            with torch.no_grad():
                low_rank.lora_A.mul_(0.3)
                low_rank.lora_B.mul_(0.3)
                merged.get_submodule(name).weight.copy_(low_rank.matrix().T)
            adapted.set_submodule(name, low_rank)

    def wrapped(hf_model: nn.Module) -> mx.HookedModel:
        inner = bridge.boot_transformers("local", hf_model=hf_model.eval(), tokenizer=tokenizer, device="cpu")
        return mx.wrap(inner.eval())

    return wrapped(adapted), wrapped(merged)


def test_an_adapted_model_reads_as_its_merged_weights(adapted_and_merged) -> None:
    adapted, merged = adapted_and_merged
    tokens = torch.tensor([[5, 6, 7, 8, 9], [15, 16, 17, 18, 19]])
    torch.testing.assert_close(adapted.logits(tokens), merged.logits(tokens), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(adapted.backend.unembedding()[0], merged.backend.unembedding()[0], atol=1e-5, rtol=1e-5)
    assert adapted.weight_hash != merged.weight_hash
    assert torch.equal(adapted.generate(tokens, 6), merged.generate(tokens, 6))
    batch = mx.ContrastBatch.from_tokens(tokens[:1], tokens[1:], torch.tensor([5]), torch.tensor([6]))
    ours, theirs = (mx.LogitLens()(model, batch).data["target_logprob"] for model in (adapted, merged))
    assert float(abs(ours - theirs).max()) < 1e-4


def test_results_of_heads_are_refused_where_the_projection_is_adapted(adapted_and_merged) -> None:
    adapted, merged = adapted_and_merged
    tokens = torch.tensor([[5, 6, 7]])
    assert merged.cache(tokens, ["result"]).stack("result").ndim == 5
    with pytest.raises(ModelSupportError, match="merge the adapters"):
        adapted.cache(tokens, ["result"])
