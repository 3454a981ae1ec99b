"""Autocast and inference mode are off inside, and as before outside; gradients are as the caller set them."""

import pytest
import torch

from mechxai.core.torch_modes import ordinary, plain_torch


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("inference", [True, False])
def test_modes_are_off_inside_and_as_before_outside(grad, inference):
    with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16), torch.inference_mode(inference):
        expected = torch.is_grad_enabled()
        with plain_torch():
            assert not torch.is_inference_mode_enabled()
            assert not torch.is_autocast_enabled("cpu")
            assert torch.is_grad_enabled() == expected
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
            with torch.enable_grad():
                assert (torch.ones(1, requires_grad=True) * 2).requires_grad
        assert torch.is_inference_mode_enabled() == inference
        assert torch.is_autocast_enabled("cpu")
        assert torch.is_grad_enabled() == expected


def test_a_tensor_made_in_inference_mode_is_copied_and_any_other_is_not():
    with torch.inference_mode():
        made = torch.tensor([1, 2])
        copied = ordinary(made)
    assert not copied.is_inference()
    assert copied.tolist() == [1, 2]
    assert ordinary(copied) is copied
