"""The engine on a GPU equals the CPU within float32 rounding."""

import numpy as np
import pytest
import torch

import mechxai as mx

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("site", ["resid_pre", "z", "pattern", "mlp_post"])
def test_sweep_on_gpu_equals_cpu(checkpoint, pairs, site):
    over = ("layer", "head") if site in ("z", "pattern") else ("layer", "pos")
    values = []
    for device in ("cpu", "cuda"):
        model = mx.load(str(checkpoint("llama")), device=device)
        values.append(
            mx.ActivationPatching(site, over)(model, pairs(model, n=3, lengths=[9, 6, 7])).data["per_example"].values
        )
    np.testing.assert_allclose(values[0], values[1], atol=1e-3)


def test_out_of_memory_halves_the_wave_for_real(checkpoint, pairs):
    model = mx.load(str(checkpoint("gpt2")), device="cuda")
    batch = pairs(model, n=4)
    whole = mx.ActivationPatching("z", ("layer", "pos", "head"))(model, batch).data["per_example"].values
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + 24 * 2**20) / total))
    try:
        tight = (
            mx.ActivationPatching("z", ("layer", "pos", "head"))(
                model, batch, execution=mx.Execution(tokens_per_wave=10**6)
            )
            .data["per_example"]
            .values
        )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    np.testing.assert_allclose(whole, tight, atol=1e-3)


def test_bfloat16_states_its_noise_floor(checkpoint, pairs):
    model = mx.load(str(checkpoint("llama")), device="cuda", dtype="bfloat16")
    result = mx.ActivationPatching("z", ("layer", "head"))(model, pairs(model))
    assert np.isfinite(result.data["per_example"].values).all()
    assert float(result.data["noise_floor"]) < 0.3
