"""The weight with which a linear layer acts."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from mechxai.core.errors import ModelSupportError
from mechxai.model.backends.effective_weight import AffineMemory, effective_affine


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
