"""Dense blocks are composed of the parts that a family has, and the check notices every part that is wrong."""

import dataclasses

import pytest
import torch
from transformers import AutoModelForCausalLM

import mechxai as mx
from mechxai.model.dense import check as dense_check
from mechxai.model.dense.check import equivalence_check
from mechxai.model.dense.parts import ModuleMlp, NeuronMlp
from mechxai.model.output_map import output_map
from tests.families import checkpoints
from tests.families.family import build
from tests.model.dense.comparison import hooked

FAMILIES = ["qwen3", "gemma2", "olmo2", "granite", "gpt-oss", "phi", "bloom", "smollm3"]


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """A function of a family's name that gives its model behind a bridge, with the weights as they are."""
    models = {}

    def load(name):
        if name not in models:
            folder = checkpoints.write(name, tmp_path_factory.mktemp(name))
            models[name] = folder, mx.load(str(folder), backend="bridge", processing="raw", device="cpu")
        return models[name]

    return load


def tokens_of(model, width=14):
    return torch.randint(10, 190, (2, width), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_give_the_activations_of_hugging_face(family, name):
    folder, model = family(name)
    check = equivalence_check(model.backend)
    assert check.dense is not None, check.reason
    assert check.covers(model.architecture.n_ctx)
    hf = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    tokens = tokens_of(model)
    with torch.no_grad():
        streams = hf(tokens, output_hidden_states=True).hidden_states
    acts = model.cache(tokens, ["resid_pre"])
    for layer in range(model.architecture.n_layers):
        torch.testing.assert_close(acts["resid_pre", layer], streams[layer], atol=1e-4, rtol=1e-3)


def of_attention(**parts):
    def change(block):
        return dataclasses.replace(block, attention=dataclasses.replace(block.attention, **parts))

    return change


def of_rule(**parts):
    def change(block):
        rule = dataclasses.replace(block.attention.rule, **parts)
        return dataclasses.replace(block, attention=dataclasses.replace(block.attention, rule=rule))

    return change


def scaled_output(block):
    attention = dataclasses.replace(block.attention, o=block.attention.o.scaled(2.0))
    return dataclasses.replace(block, attention=attention, mlp=block.mlp.scaled(2.0))


def without_bias(name):
    def change(block):
        affine = dataclasses.replace(getattr(block.attention, name), bias=None)
        return dataclasses.replace(block, attention=dataclasses.replace(block.attention, **{name: affine}))

    return change


def of_norm(name, **parts):
    def change(block):
        return dataclasses.replace(block, **{name: dataclasses.replace(getattr(block, name), **parts)})

    return change


BREAKS = {
    "query norm": ("qwen3", of_attention(q_norm=None)),
    "key norm over all heads": ("olmo2", of_attention(k_norm=None)),
    "rotation": ("qwen3", of_attention(rotary=None)),
    "norm after attention": ("gemma2", of_norm("post1", kind="none")),
    "norm after the MLP": ("olmo2", of_norm("post2", kind="none")),
    "norm before attention": ("gemma2", of_norm("norm1", weight=None)),
    "norm before the MLP": ("granite", of_norm("norm2", eps=0.5)),
    "soft-cap": ("gemma2", of_rule(softcap=None)),
    "window": ("gemma2", of_rule(window=None)),
    "wrong window": ("gpt-oss", of_rule(window=9)),
    "scale": ("granite", of_rule(scale=0.25)),
    "sinks": ("gpt-oss", of_rule(sinks=None)),
    "ALiBi": ("bloom", of_rule(slopes=None)),
    "residual multiplier": ("granite", scaled_output),
    "value bias": ("gpt-oss", without_bias("v")),
    "output bias": ("gpt-oss", without_bias("o")),
    "experts": ("gpt-oss", lambda block: dataclasses.replace(block, mlp=block.mlp.scaled(1.01))),
    "serial": ("phi", lambda block: dataclasses.replace(block, parallel=False)),
    "activation": (
        "qwen3",
        lambda block: dataclasses.replace(block, mlp=dataclasses.replace(block.mlp, activation=torch.relu)),
    ),
    "gate": (
        "qwen3",
        lambda block: dataclasses.replace(block, mlp=dataclasses.replace(block.mlp, linear=None)),
    ),
}


@pytest.mark.parametrize("part", BREAKS)
def test_the_check_notices_a_wrong_part(family, monkeypatch, unknown, part):
    name, change = BREAKS[part]
    _, model = family(name)
    read = dense_check.read_dense

    def broken(backend, tokens, *, longest):
        dense = read(backend, tokens, longest=longest)
        first, *others = dense.blocks
        return dataclasses.replace(dense, blocks=[change(first), *others])

    monkeypatch.setattr(dense_check, "read_dense", broken)
    check = equivalence_check(model.backend)
    assert not check.covers(14), "blocks without a window hold up to the window's length"
    assert check.dense is not None or "other activations" in check.reason


def test_a_rotation_left_out_of_some_layers(family):
    _, model = family("smollm3")
    rotaries = [block.attention.rotary for block in equivalence_check(model.backend).dense.blocks]
    assert [rotary is None for rotary in rotaries] == [False, True, False]


def test_windows_layer_by_layer(family):
    _, model = family("gemma2")
    windows = [block.attention.rule.window for block in equivalence_check(model.backend).dense.blocks]
    assert windows == [10, None, 10]


def test_experts_stay_the_model_s_own_module(family):
    _, model = family("gpt-oss")
    assert all(isinstance(block.mlp, ModuleMlp) for block in equivalence_check(model.backend).dense.blocks)
    _, model = family("qwen3")
    assert all(isinstance(block.mlp, NeuronMlp) for block in equivalence_check(model.backend).dense.blocks)


def replaced_forward(model):
    mlp = model.inner.original_model.model.layers[1].mlp.original_component
    forward = mlp.forward
    mlp.forward = lambda *args, **settings: 2 * forward(*args, **settings)


def replaced_activation(model):
    model.inner.original_model.model.layers[1].mlp.original_component.act_fn = torch.nn.Tanh()


def changed_scale(model):
    model.inner.original_model.model.layers[1].self_attn.original_component.scaling = 0.5


def replaced_module(model):
    layer = model.inner.original_model.model.layers[1]
    norm = layer.input_layernorm.original_component
    layer.input_layernorm._modules["_original_component"] = type(norm)(norm.weight.shape[0], eps=0.5)


CHANGES = [replaced_forward, replaced_activation, changed_scale, replaced_module]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_the_check_is_renewed_after_a_change(tmp_path, change):
    folder = checkpoints.write("qwen3", tmp_path)
    model = mx.load(str(folder), backend="bridge", processing="raw", device="cpu")
    tokens = tokens_of(model)
    before = model.cache(tokens, ["resid_post"])["resid_post", 2]
    change(model)
    expected = hooked(model, tokens, ["resid_post"])["resid_post", 2]
    assert (expected - before).abs().max() > 1e-2, "the change has no effect"
    torch.testing.assert_close(model.cache(tokens, ["resid_post"])["resid_post", 2], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "scale", "cap"), [("granite", 0.5, 0.0), ("gemma2", 1.0, 5.0), ("qwen3", 1.0, 0.0)])
def test_logits_from_the_last_stream(family, name, scale, cap):
    folder, model = family(name)
    to_logits = output_map(model.backend)
    assert (to_logits.scale, to_logits.softcap) == (scale, cap)
    hf = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    batch = mx.ContrastBatch.from_tokens(
        tokens_of(model), tokens_of(model) + 1, torch.tensor([50, 60]), torch.tensor([70, 80])
    )
    lens = mx.LogitLens(k=2)(model, batch).data
    with torch.no_grad():
        logprobs = hf(batch.clean).logits.double().log_softmax(-1)[:, :, 50][0]
    torch.testing.assert_close(torch.from_numpy(lens["target_logprob"].values[0, -1]), logprobs, atol=1e-4, rtol=1e-4)


def test_streams_with_a_very_large_dimension(tmp_path):
    """Attention's output is then small beside the stream, as in trained models."""
    model, tokenizer = build(checkpoints.FAMILIES["qwen3"])
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 5] += 3000.0
        for layer in model.model.layers:
            layer.input_layernorm.weight[5] = layer.post_attention_layernorm.weight[5] = 1e-3
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = mx.load(str(tmp_path), backend="bridge", processing="raw", device="cpu")
    check = equivalence_check(loaded.backend)
    assert check.dense is not None, check.reason
    assert not any(block.parallel for block in check.dense.blocks)
