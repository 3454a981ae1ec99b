"""Dense blocks of adapted models act with the adapters: edges and heads equal those of the merged weights."""

import copy

import numpy as np
import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, AutoTokenizer

import mechxai as mx
from mechxai.model.dense.check import equivalence_check
from tests.families import checkpoints


class LowRank(torch.nn.Linear):
    """A linear layer with an adapter beside it, as PEFT's LoRA."""

    def __init__(self, base, rank=2):
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None)
        self.load_state_dict(base.state_dict())
        self.down = torch.nn.Parameter(0.3 * torch.randn(rank, base.in_features))
        self.up = torch.nn.Parameter(0.3 * torch.randn(base.out_features, rank))

    def forward(self, x):
        return super().forward(x) + x @ self.down.T @ self.up.T

    def merged(self):
        layer = torch.nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        layer.load_state_dict({name: value for name, value in self.state_dict().items() if name in ("weight", "bias")})
        layer.weight.data += self.up.data @ self.down.data
        return layer


def with_projections(hf, change):
    """The model with every query, key, value, output and last MLP projection changed."""
    for layer in hf.model.layers:
        for part, names in ((layer.self_attn, ("q_proj", "k_proj", "v_proj", "o_proj")), (layer.mlp, ("down_proj",))):
            for name in names:
                setattr(part, name, change(getattr(part, name)))
    return hf.eval().requires_grad_(requires_grad=False)


def wrapped(hf, tokenizer):
    hf.set_attn_implementation("eager")
    return mx.wrap(TransformerBridge.boot_transformers("local", hf_model=hf, tokenizer=tokenizer, device="cpu"))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """An adapted model, and the same with the adapters merged."""
    folder = checkpoints.write("llama2", tmp_path_factory.mktemp("adapted"))
    hf, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(1)
    adapted = with_projections(hf, LowRank)
    merged = with_projections(copy.deepcopy(adapted), lambda layer: layer.merged())
    return wrapped(adapted, tokenizer), wrapped(merged, tokenizer)


@pytest.fixture(scope="module")
def batch():
    clean = torch.randint(10, 190, (2, 8), generator=torch.Generator().manual_seed(0))
    corrupted = clean.clone()
    corrupted[:, 3] = 200 - corrupted[:, 3]
    return mx.ContrastBatch.from_tokens(clean, corrupted, torch.tensor([50, 60]), torch.tensor([70, 80]))


@pytest.mark.parametrize(
    ("method", "variable"),
    [
        (mx.EdgePatching(), "per_example"),
        (mx.EdgeAttribution(), "per_example"),
        (mx.DirectLogitAttribution(by="head"), "value"),
        (mx.DirectLogitAttribution(by="neuron"), "value"),
        (mx.ActivationPatching("z", ("layer", "head")), "per_example"),
    ],
    ids=lambda value: getattr(type(value), "__name__", None),
)
def test_numbers_are_those_of_the_merged_weights(models, batch, method, variable):
    adapted, merged = models
    assert equivalence_check(adapted.backend).dense is not None, equivalence_check(adapted.backend).reason
    first, second = (method(model, batch).data[variable].values for model in (adapted, merged))
    assert np.abs(second).max() > 0.1
    np.testing.assert_allclose(first, second, atol=2e-4 * np.abs(second).max())


def test_a_changed_adapter_renews_the_check(models, batch):
    adapted, _ = models
    before = mx.EdgePatching()(adapted, batch).data["per_example"].values
    layer = adapted.inner.original_model.model.layers[1].self_attn.o_proj.original_component
    with torch.no_grad():
        layer.up.mul_(-1)
    try:
        after = mx.EdgePatching()(adapted, batch).data["per_example"].values
    finally:
        with torch.no_grad():
            layer.up.mul_(-1)
    assert np.abs(after - before).max() > 1e-2
