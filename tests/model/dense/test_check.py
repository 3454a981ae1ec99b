"""Dense blocks are used only for models where the equivalence check passed, and never beside the hooks of a user."""

import dataclasses

import pytest
import torch

import mechxai as mx
from mechxai.model.dense import cache as cache_run
from mechxai.model.dense import check as dense_check
from mechxai.model.dense import lengths
from mechxai.model.dense.check import dense_blocks, equivalence_check
from mechxai.model.dense.parts import Norm
from tests.conftest import FOLDED
from tests.model.dense.comparison import alike, hooked, tokens_of


def wrong_activation(dense):
    mlps = [dataclasses.replace(block.mlp, activation=torch.relu) for block in dense.blocks]
    blocks = [dataclasses.replace(block, mlp=mlp) for block, mlp in zip(dense.blocks, mlps, strict=True)]
    return dataclasses.replace(dense, blocks=blocks)


def wrong_weight(dense):
    first, second, third = dense.blocks
    o = second.attention.o
    attention = dataclasses.replace(second.attention, o=dataclasses.replace(o, weight=o.weight * 1.01))
    return dataclasses.replace(dense, blocks=[first, dataclasses.replace(second, attention=attention), third])


def wrong_shape(dense):
    last = dense.blocks[2]
    out = dataclasses.replace(last.mlp.out, weight=last.mlp.out.weight[1:])
    changed = dataclasses.replace(last, mlp=dataclasses.replace(last.mlp, out=out))
    return dataclasses.replace(dense, blocks=[*dense.blocks[:2], changed])


@pytest.mark.parametrize("wrong", [wrong_activation, wrong_weight, wrong_shape])
@pytest.mark.parametrize(("kind", "backend", "processing"), [one for one in FOLDED if one[0] != "llama"])
def test_wrong_blocks_are_not_trusted(model_of, monkeypatch, unknown, passes, kind, backend, processing, wrong):
    model = model_of(kind, backend, processing)
    tokens = tokens_of(model)
    expected = hooked(model, tokens, ["resid_post"])
    read = dense_check.read_dense
    monkeypatch.setattr(dense_check, "read_dense", lambda *given, **named: wrong(read(*given, **named)))
    found = model.cache(tokens, ["resid_post"])
    assert not passes
    for site, value in found.values.items():
        assert torch.equal(value, expected.values[site])


def test_a_wrong_final_norm_is_not_trusted(model_of, monkeypatch, unknown, passes):
    model = model_of("gpt2")
    tokens = tokens_of(model)
    read = dense_check.read_dense
    monkeypatch.setattr(
        dense_check,
        "read_dense",
        lambda *given, **named: dataclasses.replace(read(*given, **named), final=Norm("none", 0.0)),
    )
    model.cache(tokens, ["resid_post"])
    assert not passes
    assert "other activations" in equivalence_check(model.backend).reason


def test_blocks_that_hold_for_short_prompts_only(model_of, monkeypatch, passes):
    model = model_of("gpt2")
    check = equivalence_check(model.backend)
    short = dataclasses.replace(check, dense=dataclasses.replace(check.dense, longest=8))
    monkeypatch.setattr(cache_run, "equivalence_check", lambda _: short)
    model.cache(tokens_of(model, (2, 9)), ["resid_post"])
    assert not passes
    model.cache(tokens_of(model, (2, 8)), ["resid_post"])
    assert passes == [2]


@pytest.mark.parametrize(("affordable", "longest"), [(2e11, None), (1e6, 20)])
def test_blocks_hold_up_to_the_longest_tested_length(model_of, monkeypatch, unknown, affordable, longest):
    model = model_of("llama", "bridge")
    monkeypatch.setattr(model.inner.original_model.config, "sliding_window", 20, raising=False)
    monkeypatch.setattr(lengths, "_PRODUCTS", affordable)
    assert dense_blocks(model.backend).longest == longest


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_functions_of_the_user_are_obeyed(model_of, passes, kind, backend, processing):
    model = model_of(kind, backend, processing)
    tokens, seen = tokens_of(model), []
    dense = model.cache(tokens, ["resid_post"])
    assert passes
    passes.clear()
    point = model.inner.hook_dict[mx.Site("z", 0).hook]
    point.add_hook(lambda z, hook: 0 * z)
    try:
        changed = model.cache(tokens, ["resid_post"])
    finally:
        point.remove_hooks("fwd", including_permanent=True)
    handle = model.inner.blocks[1].register_forward_hook(lambda *_: seen.append(1))
    try:
        model.cache(tokens, ["resid_post"])
    finally:
        handle.remove()
    assert not passes
    assert seen
    assert (changed["resid_post", 2] - dense["resid_post", 2]).abs().max() > 1e-3
    alike(model.cache(tokens, ["resid_post"]), dense)
    assert passes


@pytest.mark.parametrize(("kind", "backend", "processing"), [one for one in FOLDED if one[0] == "gpt2"])
def test_changed_weights_are_seen(checkpoint, kind, backend, processing):
    model = mx.load(str(checkpoint(kind)), backend=backend, processing=processing, device="cpu")
    tokens = tokens_of(model)
    before = model.cache(tokens, ["resid_post"])
    parameters = [one for one in model.inner.blocks[1].parameters() if one.dim() > 1]
    with torch.no_grad():
        for parameter in parameters:
            parameter.mul_(1.5)
    in_place = model.cache(tokens, ["resid_post"])
    alike(in_place, hooked(model, tokens, ["resid_post"]))
    for parameter in parameters:
        parameter.data = parameter.data / 1.5
    alike(model.cache(tokens, ["resid_post"]), before)
    assert (in_place["resid_post", 1] - before["resid_post", 1]).abs().max() > 1e-3


def other_activation(block):
    block.mlp.act_fn = torch.tanh


def other_forward(block):
    forward = block.mlp.forward
    block.mlp.forward = lambda x: 2 * forward(x)


def other_scale(block):
    block.attn.attn_scale = 1.0


@pytest.mark.parametrize("change", [other_activation, other_forward, other_scale], ids=lambda change: change.__name__)
def test_changes_of_a_hooked_transformer_are_seen(checkpoint, change):
    if "hooked_transformer" not in {backend for _, backend, _ in FOLDED}:
        pytest.skip("this TransformerLens has no HookedTransformer")
    model = mx.load(str(checkpoint("gpt2")), backend="hooked_transformer", device="cpu")
    tokens = tokens_of(model)
    before = model.cache(tokens, ["resid_post"])
    change(model.inner.blocks[1])
    after = model.cache(tokens, ["resid_post"])
    alike(after, hooked(model, tokens, ["resid_post"]))
    assert (after["resid_post", 1] - before["resid_post", 1]).abs().max() > 1e-3
