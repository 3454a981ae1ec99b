"""Every tensor of a loaded model is the checkpoint's: missing, left over, misshapen and non-finite ones are named."""

import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ArtifactError, ModelSupportError, NumericsError
from tests.model.checkpoint import faults

QUERY = "model.layers.1.self_attn.q_proj.weight"


def encoder(name, **options):
    return mx.load_encoder(name, references=["a drink"], **options)


@pytest.fixture
def edited(checkpoint, tmp_path):
    """(kind, edit of the table of tensors) -> the folder's name."""
    return lambda kind, edit: str(faults.edit_tensors(faults.copy(checkpoint(kind), tmp_path / "mine"), edit))


def without(*names):
    return lambda tensors: [tensors.pop(name) for name in names]


def added(name, *shape):
    return lambda tensors: tensors.update({name: torch.zeros(shape)})


def poked(name, value):
    return lambda tensors: tensors[name].view(-1)[3:4].fill_(value)


@pytest.mark.parametrize(
    ("load", "kind", "name"),
    [
        (mx.load, "llama", QUERY),
        (mx.load, "llama", "model.norm.weight"),
        (mx.load, "gpt2", "transformer.h.2.mlp.c_fc.bias"),
        (mx.load, "gpt2", "transformer.wte.weight"),
        (mx.load, "neox", "gpt_neox.embed_in.weight"),
        (mx.load, "bert", "bert.encoder.layer.0.attention.self.query.weight"),
        (mx.load_classifier, "bert-classifier", "bert.embeddings.word_embeddings.weight"),
        (encoder, "bert-encoder", "encoder.layer.0.output.dense.weight"),
    ],
)
def test_missing_tensors(edited, load, kind, name):
    with pytest.raises(ArtifactError, match=rf"its files lack tensors of the model: .*{name}"):
        load(edited(kind, without(name)), device="cpu")


@pytest.mark.parametrize(
    ("load", "kind", "name"),
    [
        (mx.load, "llama", "lm_head.weight"),
        (mx.load, "neox", "embed_out.weight"),  # transformers calls it lm_head
        (mx.load, "bert", "cls.predictions.transform.dense.weight"),
        (mx.load_classifier, "bert-classifier", "classifier.weight"),
        (mx.load_classifier, "gpt2-classifier", "score.weight"),
    ],
)
def test_missing_heads_are_never_random(edited, load, kind, name):
    shown = name.replace("embed_out", "lm_head")
    with pytest.raises(ModelSupportError, match=rf"its files lack the head \({shown}\), which would be random"):
        load(edited(kind, without(name)), device="cpu")


@pytest.mark.parametrize("kind", ["bert-encoder", "bert", "llama", "gpt2"])
def test_models_without_a_classification_head(checkpoint, kind):
    with pytest.raises(ModelSupportError, match=r"Classification: its files lack the head .*mx.load_encoder"):
        mx.load_classifier(str(checkpoint(kind)), device="cpu")


def test_an_encoder_is_no_language_model(checkpoint):
    with pytest.raises(ModelSupportError, match=r"BertForMaskedLM: its files lack the head \(cls.predictions"):
        mx.load(str(checkpoint("bert-encoder")), device="cpu")


def test_tied_weights_are_not_missing(checkpoint):
    from safetensors import safe_open

    with safe_open(checkpoint("gpt2") / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in set(file.keys())
    mx.load(str(checkpoint("gpt2")), device="cpu")


def test_the_pooler_of_an_encoder_is_not_used(checkpoint, edited):
    """Its embeddings are those of tokens, so a checkpoint may come without it."""
    whole = encoder(str(checkpoint("bert-encoder")), device="cpu")
    bare = encoder(edited("bert-encoder", without("pooler.dense.weight", "pooler.dense.bias")), device="cpu")
    tokens, lengths = whole.tokens("The keys are on the table.")
    torch.testing.assert_close(bare.logits(tokens, lengths=lengths), whole.logits(tokens, lengths=lengths))


@pytest.mark.parametrize(
    ("kind", "name", "shape"),
    [
        ("llama", "model.layers.3.self_attn.q_proj.weight", (64, 64)),
        ("llama", "model.layers.1.self_attn.q_proj.bias", (64,)),
        ("llama", "model.layers.1.self_attn.q_norm.weight", (16,)),
        ("llama", "lm_head.bias", (400,)),
        ("gpt2", "transformer.h.3.mlp.c_fc.weight", (64, 256)),
        ("gpt2", "h.3.mlp.c_fc.weight", (64, 256)),
        ("neox", "gpt_neox.layers.0.attention.dense.scale", (64,)),
    ],
)
def test_tensors_of_the_language_model_without_a_place(edited, kind, name, shape):
    with pytest.raises(ArtifactError, match=rf"has no place for: {name}.*Correct config.json"):
        mx.load(edited(kind, added(name, *shape)), device="cpu")


@pytest.mark.parametrize(
    ("kind", "name", "shape"),
    [
        ("llama", "model.layers.1.self_attn.rotary_emb.inv_freq", (8,)),
        ("gpt2", "transformer.h.1.attn.bias", (1, 1, 64, 64)),
        ("gpt2", "v_head.summary.weight", (1, 64)),
        ("bert", "cls.seq_relationship.weight", (2, 64)),
        ("bert", "bert.pooler.dense.weight", (64, 64)),
    ],
)
def test_harmless_leftovers(checkpoint, edited, kind, name, shape):
    model = mx.load(edited(kind, added(name, *shape)), device="cpu")
    assert model.weight_hash == mx.load(str(checkpoint(kind)), device="cpu").weight_hash


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        ("llama", {"num_hidden_layers": 2}, "has no place for: model.layers.2.input_layernorm.weight.* and 6 more"),
        (
            "llama",
            {"num_hidden_layers": 5},
            "files lack tensors of the model: model.layers.3.input_layernorm.weight",
        ),
        ("llama", {"num_key_value_heads": 4}, r"k_proj.weight \(stored 32x64, wanted 64x64\)"),
        ("llama", {"head_dim": 32}, r"wrong shape: .*k_proj.weight \(stored 32x64, wanted 64x64\)"),
        ("gpt2", {"n_embd": 32}, r"wrong shape: .*attn.bias \(stored 192, wanted 96\).* more"),
        ("neox", {"vocab_size": 300}, r"lm_head.weight \(stored \d+x64, wanted 300x64\)"),
        ("bert", {"max_position_embeddings": 32}, r"position_embeddings.weight \(stored 64x64, wanted 32x64\)"),
    ],
)
def test_configurations_of_another_shape(checkpoint, tmp_path, kind, settings, reason):
    folder = faults.set_config(faults.copy(checkpoint(kind), tmp_path / "mine"), **settings)
    with pytest.raises(ArtifactError, match=reason):
        mx.load(str(folder), device="cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("load", "kind", "name"),
    [
        (mx.load, "llama", QUERY),
        (mx.load, "gpt2", "transformer.ln_f.bias"),
        (mx.load_classifier, "bert-classifier", "classifier.weight"),
    ],
)
def test_weights_that_are_not_finite(edited, load, kind, name, value):
    with pytest.raises(NumericsError, match=rf"1 of \d+ values of {name} are NaN or infinite \(float32\)"):
        load(edited(kind, poked(name, value)), device="cpu")


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32])
def test_quantised_numbers_without_their_scale(edited, dtype):
    """transformers would take them for weights."""
    name = edited("llama", lambda tensors: tensors.update({QUERY: (100 * tensors[QUERY]).to(dtype)}))
    with pytest.raises(ArtifactError, match=rf"{QUERY} holds whole numbers \([IU]\d+\).*quantization_config"):
        mx.load(name, device="cpu")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_floating_point_formats(checkpoint, edited, dtype):
    def cast(tensors):
        tensors.update({key: tensor.to(dtype) for key, tensor in tensors.items()})

    found = mx.load(edited("llama", cast), device="cpu").logits(torch.tensor([[5, 6, 7]]))
    exact = mx.load(str(checkpoint("llama")), device="cpu").logits(torch.tensor([[5, 6, 7]]))
    largest = float(exact.abs().max())
    torch.testing.assert_close(found, exact, atol=(0.5 if dtype == torch.float8_e4m3fn else 0.05) * largest, rtol=0)


def test_weights_that_overflow_in_half_precision(edited):
    name = edited("bert-classifier", poked("classifier.weight", 1e6))
    mx.load_classifier(name, device="cpu")
    with pytest.raises(NumericsError, match=r"classifier.weight .*\(float16\).*dtype='float32'"):
        mx.load_classifier(name, device="cpu", dtype="float16")
