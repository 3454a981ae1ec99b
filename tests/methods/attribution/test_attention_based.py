"""Attention scores and rollout, by hand and against Hugging Face's attention weights."""

import pytest
import torch

import mechxai as mx
from mechxai.methods.attribution.attention_rollout import rollout


def test_rollout_by_hand():
    first = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    second = torch.tensor([[1.0, 0.0], [0.2, 0.8]])
    found = rollout(torch.stack([first, second])[:, None].double(), 0.5)[0]
    # A' = (A + I) / 2: [[1, 0], [.25, .75]] and [[1, 0], [.1, .9]]; the product's last row: .1 + .9 * .25, .9 * .75
    assert found.tolist() == [[1.0, 0.0], [pytest.approx(0.325), pytest.approx(0.675)]]


@pytest.mark.parametrize("fusion", ["mean", "max", "min"])
def test_attention_equals_hugging_faces(model_of, checkpoint, pairs, fusion):
    from transformers import AutoModelForCausalLM

    model = model_of("llama")
    batch = pairs(model, n=1, width=6)
    hf = AutoModelForCausalLM.from_pretrained(checkpoint("llama"), attn_implementation="eager").eval()
    patterns = torch.stack(hf(batch.clean, output_attentions=True).attentions)[:, 0].detach()  # [layer, head, d, s]
    heads = {"mean": patterns.mean(1), "max": patterns.amax(1), "min": patterns.amin(1)}[fusion]
    scores = mx.AttentionScores(fusion=fusion)(model, batch).data["value"].values[0]
    assert scores == pytest.approx(heads[:, -1].mean(0).numpy(), abs=1e-5)
    if fusion == "mean":
        last = torch.eye(6)
        for layer in heads:
            last = (layer + torch.eye(6)) / 2 @ last
        rolled = mx.AttentionRollout()(model, batch).data["value"].values[0]
        assert rolled == pytest.approx(last[-1].numpy(), abs=1e-5)


def test_attention_without_the_sink_adds_up_to_one(zoo):
    batch = mx.tasks.ioi(zoo, n=4)
    for kind in (mx.AttentionScores, mx.AttentionRollout):
        kept, dropped = kind(bos="keep")(zoo, batch).data, kind(bos="drop")(zoo, batch).data
        assert (kept["value"].sum("pos") + kept["on_special"]).values == pytest.approx(1)
        assert dropped["value"].sum("pos").values == pytest.approx(1)
        assert (kept["on_special"] > 0).all()
