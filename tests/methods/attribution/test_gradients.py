"""Gradient methods equal Captum's on Hugging Face models; integrated gradients converge or say that they do not."""

import pytest
import torch

import mechxai as mx
from tests.conftest import MODELS


@pytest.mark.parametrize(("kind", "backend", "processing"), MODELS)
def test_integrated_gradients_equal_captums_on_hugging_face(model_of, checkpoint, pairs, kind, backend, processing):
    from captum.attr import LayerIntegratedGradients
    from transformers import AutoModelForCausalLM

    model = model_of(kind, backend, processing)
    batch = pairs(model, n=1, width=8)
    hf = AutoModelForCausalLM.from_pretrained(checkpoint(kind)).eval()
    answer, wrong = int(batch.answers), int(batch.wrong)
    captum = LayerIntegratedGradients(
        lambda ids: hf(ids).logits[:, -1, answer] - hf(ids).logits[:, -1, wrong], hf.get_input_embeddings()
    )
    pad = torch.full_like(batch.clean, model.tokenizer.eos_token_id)
    expected = captum.attribute(batch.clean, pad, n_steps=50).sum(-1)[0].detach().numpy()
    found = mx.IntegratedGradients(n_steps=50, max_steps=50)(model, batch).data["value"].values[0]
    assert found == pytest.approx(expected, abs=1e-4 * max(1.0, float(abs(expected).max())))


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_saliency_and_gradient_x_input_equal_captums(model_of, checkpoint, pairs, kind):
    from captum.attr import InputXGradient
    from transformers import AutoModelForCausalLM

    model = model_of(kind, "auto", "raw")
    batch = pairs(model, n=1, width=6)
    hf = AutoModelForCausalLM.from_pretrained(checkpoint(kind)).eval()
    embeddings = hf.get_input_embeddings()(batch.clean).detach()
    forward = lambda given: (  # noqa: E731
        hf(inputs_embeds=given).logits[:, -1, int(batch.answers)]
        - hf(inputs_embeds=given).logits[:, -1, int(batch.wrong)]
    )
    expected = InputXGradient(forward).attribute(embeddings.clone().requires_grad_())[0].detach()
    found = mx.GradientXInput()(model, batch).data["value"].values[0]
    assert found == pytest.approx(expected.sum(-1).numpy(), abs=1e-4)
    length = mx.Saliency()(model, batch).data["value"].values[0]
    assert length == pytest.approx((expected / embeddings[0]).norm(dim=-1).numpy(), rel=1e-3)


def test_parts_of_the_path_are_halved_until_the_scores_add_up(zoo):
    batch = mx.tasks.ioi(zoo, n=3)
    coarse = mx.IntegratedGradients(n_steps=1, max_steps=1)(zoo, batch)
    assert any("do not add up" in note for note in coarse.info.notes)
    finer = mx.IntegratedGradients(n_steps=1, max_steps=64, tolerance=0.01)(zoo, batch)
    change = abs(finer.data["target_score"] - finer.data["baseline_score"])
    assert (abs(finer.data["delta"]) <= 0.01 * change).all()
    assert finer.data["n_steps"].values.max() > 1
    assert not any("do not add up" in note for note in finer.info.notes)
