"""The engine computes the logits that a metric reads and no others, and renumbers tokens to them."""

import pytest
import torch

import mechxai as mx


@pytest.mark.parametrize(("answer", "wrong"), [(30, 20), (20, 30), (20, 189), (189, 20)])
def test_a_metric_of_answers_alone_takes_any_wrong_answer(model_of, answer, wrong):
    model = model_of("gpt2")
    clean, corrupted = torch.tensor([[10, 11, 12, 13]]), torch.tensor([[10, 15, 12, 13]])
    batch = mx.ContrastBatch.from_tokens(clean, corrupted, torch.tensor([answer]), torch.tensor([wrong]))
    logit = mx.ActivationPatching(site="resid_pre", over=("layer", "pos"), metric="logit")(model, batch).data
    assert logit["baseline_clean"].item() == pytest.approx(float(model.logits(clean)[0, -1, answer]), abs=1e-4)
    both = mx.ActivationPatching(site="resid_pre", over=("layer", "pos"), metric="logit_diff")(model, batch).data
    difference = float(model.logits(clean)[0, -1, answer] - model.logits(clean)[0, -1, wrong])
    assert both["baseline_clean"].item() == pytest.approx(difference, abs=1e-4)
