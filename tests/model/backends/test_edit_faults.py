"""A site where the bridge shows a copy is refused for edits, whatever the family; one behind zero weights is not."""

import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ModelSupportError
from tests.families.checkpoints import write

TOKENS = torch.tensor([[3, 5, 7, 11]])
COPIES = ("gptneo", "gemma4", "llama4", "gptj", "opt", "xglm", "nanochat")


@pytest.fixture(scope="module")
def bridge_of(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    return lambda name: mx.load(str(write(name, root / name)), backend="bridge", processing="raw", device="cpu")


def edited(model, name, layer=0):
    site = mx.Site(name, layer)
    return model.logits(TOKENS, interventions=[mx.Intervention(site, mx.AddNoise(1.0))])


@pytest.mark.parametrize("name", COPIES)
def test_edits_of_copies_are_refused(bridge_of, name):
    model = bridge_of(name)
    model.cache(TOKENS, ["pattern"], layers=[0])  # reading a copy is allowed
    for site in ("attn_scores", "pattern"):
        with pytest.raises(ModelSupportError, match=rf"blocks\.0.*{site}.* cannot be edited on .*Use resid_pre"):
            edited(model, site)
    assert not torch.equal(edited(model, "z"), model.logits(TOKENS))


def test_a_sweep_over_copies_is_refused_before_any_prompt_runs(bridge_of, monkeypatch):
    model = bridge_of("gptneo")
    batch = mx.ContrastBatch.from_tokens(TOKENS, TOKENS + 1, torch.tensor([4]), torch.tensor([6]))
    monkeypatch.setattr(type(model), "forward", lambda *_, **__: pytest.fail("a prompt ran"))
    for method in (
        mx.ActivationPatching("pattern", ("layer", "head")),
        mx.Ablation(site="attn_scores", over=("layer", "head"), edit="zero"),
        mx.AttributionPatching(site="pattern"),
    ):
        with pytest.raises(ModelSupportError, match="cannot be edited on"):
            method(model, batch)


def test_a_failing_edit_is_refused_with_its_reason(bridge_of):
    """TransformerLens looks for the gains of OLMo's norms, which have none."""
    with pytest.raises(ModelSupportError, match=r"ln1_normalized cannot be edited on .*AttributeError.*weight"):
        edited(bridge_of("olmo"), "ln1_normalized")


def test_weights_of_zero_are_no_copy(bridge_of):
    model = bridge_of("gpt2")
    with torch.no_grad():
        for block in model.inner.original_model.transformer.h:
            block.attn.c_proj.weight.zero_()
            block.mlp.c_proj.weight.zero_()
    for site in ("pattern", "z", "mlp_post"):
        assert torch.equal(edited(model, site), model.logits(TOKENS)), site
