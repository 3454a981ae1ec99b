"""Sizes that no model, or not this checkpoint, can have are refused at once and without memory."""

import re
import tracemalloc
from pathlib import Path

import pytest
import transformers

import mechxai as mx
from mechxai.core.errors import ArtifactError, ModelSupportError, NoSpaceError
from mechxai.model.checkpoint import sizes as checked_sizes
from mechxai.model.checkpoint.sizes import check_kind, check_sizes
from tests.model.checkpoint import faults

MUCH = 50_000_000  # bytes


def refusal(source, tmp_path, load=mx.load, **settings):
    folder = faults.set_config(faults.copy(source, tmp_path / "mine"), **settings)
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError) as caught:
            load(str(folder), device="cpu")
        assert tracemalloc.get_traced_memory()[1] < MUCH
    finally:
        tracemalloc.stop()
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "size", "value", "reason"),
    [
        ("llama", "hidden_size", 10**9, "hidden_size=1000000000, more than any model has"),
        ("gpt2", "n_embd", 10**9, "n_embd=1000000000, more than any model has"),
        ("llama", "num_hidden_layers", 10**6, "num_hidden_layers=1000000, more than any model has"),
        ("gpt2", "n_layer", 10**6, "n_layer=1000000, more than any model has"),
        ("llama", "num_hidden_layers", 500, "num_hidden_layers=500, but its files hold 30 tensors in all"),
        ("neox", "vocab_size", 10**7, "vocab_size=10000000, but the widest tensor of its files has"),
        ("llama", "hidden_size", 65536, "hidden_size=65536, but the widest tensor of its files has"),
        ("llama", "intermediate_size", 10**6, "a model of 576.* parameters, but its files hold"),
        ("gpt2", "n_positions", 10**8, "a model of 64.* parameters, but its files hold"),
        ("llama", "max_position_embeddings", 10**12, "max_position_embeddings=1000000000000, more than"),
        ("neox", "num_attention_heads", -4, "num_attention_heads=-4, which must be above 0"),
        ("llama", "num_key_value_heads", 0, "num_key_value_heads=0, which must be above 0"),
        ("gpt2", "n_head", 0, "n_head=0, which must be above 0"),
        ("bert", "vocab_size", 0, "vocab_size=0, which must be above 0"),
        ("llama", "hidden_size", "64", "hidden_size='64', which is not a whole number"),
        ("gpt2", "n_layer", 2.5, "n_layer=2.5, which is not a whole number"),
        ("gpt2", "n_head", 3, "hidden_size=64 and num_attention_heads=3, which does not divide it"),
        ("bert", "num_attention_heads", 7, "hidden_size=64 and num_attention_heads=7, which does not divide it"),
        ("llama", "num_key_value_heads", 3, "num_attention_heads=4 and num_key_value_heads=3, which does not"),
    ],
)
def test_impossible_sizes(checkpoint, tmp_path, kind, size, value, reason):
    message = refusal(checkpoint(kind), tmp_path, **{size: value})
    assert re.search(reason, message), message
    assert "Correct config.json" in message


def test_sizes_of_classifiers_too(checkpoint, tmp_path):
    message = refusal(checkpoint("bert-classifier"), tmp_path, mx.load_classifier, hidden_size=10**9)
    assert "(BertForSequenceClassification) cannot be loaded: its config.json says hidden_size=1000000000" in message


@pytest.mark.parametrize("family", ["T5Config", "BartConfig", "MarianConfig", "PegasusConfig", "WhisperConfig"])
def test_encoder_decoder_models_are_refused_by_their_configuration(family):
    config = getattr(transformers, family)()
    with pytest.raises(ModelSupportError, match=rf"it is an encoder-decoder model \({config.model_type}\)"):
        check_kind(config, "mine")


@pytest.mark.parametrize(
    "load", [mx.load, mx.load_classifier, lambda name, **o: mx.load_encoder(name, references=["a"])]
)
def test_encoder_decoder_folders(checkpoint, tmp_path, load):
    """No weight is read: there are none of this family."""
    folder = faults.copy(checkpoint("llama"), tmp_path / "mine")
    sizes = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "vocab_size": 400}
    transformers.T5Config(**sizes, architectures=["T5ForConditionalGeneration"]).save_pretrained(Path(folder))
    with pytest.raises(ModelSupportError, match=r"\(T5ForConditionalGeneration\).*encoder-decoder model \(t5\)"):
        load(str(folder), device="cpu")


def test_sizes_that_differ_between_layers_are_left_to_the_library():
    """Gemma 4 has wider heads in its global layers; transformers refuses to give one size for all."""
    layers = ["sliding_attention", "sliding_attention", "full_attention"]
    sizes = {"vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "head_dim": 24}
    check_sizes(transformers.Gemma4TextConfig(**sizes, num_key_value_heads=2, layer_types=layers), "mine", None)
    with pytest.raises(ArtifactError, match="num_key_value_heads=3, which does not divide it"):
        check_sizes(transformers.Gemma4TextConfig(**sizes, num_key_value_heads=3, layer_types=layers), "mine", None)


def test_a_head_size_of_its_own_need_not_divide_the_width():
    sizes = {"vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 6}
    check_sizes(transformers.Qwen3Config(**sizes, num_key_value_heads=2, head_dim=24), "mine", None)


@pytest.mark.parametrize(("load", "kind"), [(mx.load, "llama"), (mx.load_classifier, "bert-classifier")])
def test_a_model_larger_than_the_free_memory(checkpoint, monkeypatch, load, kind):
    monkeypatch.setattr(checked_sizes, "available_bytes", lambda _: 200_000)
    with pytest.raises(NoSpaceError, match=r"its weights take 0.0 GiB in float32, in which they are read; 0.0 GiB are"):
        load(str(checkpoint(kind)), device="cpu")


def test_a_context_without_a_limit_is_no_fault(tmp_path):
    """XLNet's configuration says -1; the library that cannot convert it is the reason."""
    config = transformers.XLNetConfig(vocab_size=300, d_model=64, n_layer=2, n_head=4, d_inner=128)
    assert config.max_position_embeddings == -1
    check_sizes(config, "mine", None)
