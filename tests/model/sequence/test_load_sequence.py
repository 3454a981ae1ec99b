"""Classifiers and encoders of many architectures: Hugging Face's outputs, text by text, or refused with the reason."""

import numpy as np
import pytest
import torch
import transformers
from tokenizers import processors

import mechxai as mx
from mechxai.core.errors import ModelSupportError, ShapeError
from tests.checkpoints import byte_pair_tokenizer, word_piece_tokenizer
from tests.model.checkpoint import faults

TEXTS = ["Mary gave a drink to John.", "The keys are on the table, near the cabinet."]
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
CONTEXT = {"max_position_embeddings": 64}
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 16}
LINEAR |= {"linear_value_head_dim": 16, "head_dim": 16, "num_key_value_heads": 2, "num_experts": 0}
LINEAR |= {"layer_types": ["linear_attention", "full_attention", "linear_attention"]}


def write(folder, kind, *, tokenizer=None, **settings):
    """A random checkpoint of a model class with its tokenizer; returns the folder's name."""
    torch.manual_seed(0)
    tokenizer = tokenizer or word_piece_tokenizer()
    model_class = getattr(transformers, kind)
    sizes = {"vocab_size": len(tokenizer), **SIZES, "pad_token_id": 0, **settings}
    model = model_class(model_class.config_class(**sizes, num_labels=3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.tie_weights()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def hugging_face_logits(auto, name, classifier):
    """Hugging Face's outputs, one text at a time, from token ids."""
    hf = auto.from_pretrained(name, attn_implementation="eager").eval()
    with torch.no_grad():
        rows = [torch.tensor([classifier.text.ids(text)]) for text in TEXTS]
        return torch.cat([hf(row, attention_mask=torch.ones_like(row), use_cache=False).logits for row in rows])


@pytest.mark.parametrize(
    ("family", "settings", "causal", "n_ctx"),
    [
        ("Bloom", {}, True, 1_000_000),
        ("Mpt", {"d_model": 64, "n_heads": 4, "n_layers": 3, "max_seq_len": 64}, True, 64),
        ("Llama", {**CONTEXT, "pad_token_id": None}, True, 64),
        ("Qwen3Next", {**CONTEXT, **LINEAR}, True, 64),
        ("ModernBert", {**CONTEXT, "cls_token_id": 2, "sep_token_id": 3}, False, 64),
        ("Roberta", {**CONTEXT, "pad_token_id": 1}, False, 62),  # positions begin behind the padding row
        ("MPNet", {**CONTEXT, "pad_token_id": 1}, False, 62),
        ("OPT", {**CONTEXT, "ffn_dim": 128, "word_embed_proj_dim": 64}, True, 64),  # an offset, but rows for it
        ("BigBird", {**CONTEXT}, False, 64),
        ("FNet", {**CONTEXT}, False, 64),
    ],
)
def test_outputs_sizes_and_direction(tmp_path, family, settings, causal, n_ctx):
    name = write(tmp_path / "mine", f"{family}ForSequenceClassification", **settings)
    model = mx.load_classifier(name, device="cpu")
    assert model.architecture.causal == causal
    assert model.architecture.n_ctx == n_ctx
    tokens, lengths = model.tokens(TEXTS)
    found = model.logits(tokens, lengths=lengths)[:, 0]
    expected = hugging_face_logits(transformers.AutoModelForSequenceClassification, name, model)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    data = mx.GradientXInput()(model, mx.tasks.prompts(model, texts=TEXTS)).data
    top = expected.topk(2).values
    torch.testing.assert_close(torch.tensor(data["target_score"].values).float(), top[:, 0] - top[:, 1])


@pytest.mark.parametrize("family", ["Roberta", "MPNet", "Bert"])
def test_the_longest_text_is_read_and_a_longer_one_refused(tmp_path, family):
    name = write(tmp_path / "mine", f"{family}ForSequenceClassification", max_position_embeddings=16, pad_token_id=1)
    model = mx.load_classifier(name, device="cpu")
    longest = model.architecture.n_ctx
    assert model.logits(torch.full((1, longest), 7)).isfinite().all()
    with pytest.raises(ShapeError, match=f"reads up to n_ctx={longest}"):
        model.logits(torch.full((1, longest + 1), 7))


@pytest.mark.parametrize(
    ("family", "settings", "reason"),
    [
        ("Esm", {**CONTEXT, "mask_token_id": 4, "token_dropout": True}, r"its outputs for the embeddings .* differ by"),
        ("IBert", CONTEXT, "its first forward pass stops with AttributeError"),
        ("Canine", CONTEXT, "its first forward pass stops with|does not read tokens"),
        ("Longformer", {**CONTEXT, "attention_window": 8}, "its first forward pass stops with TypeError"),
    ],
)
def test_models_that_do_not_run_on_embeddings_are_refused(tmp_path, family, settings, reason):
    name = write(tmp_path / "mine", f"{family}ForSequenceClassification", **settings)
    with pytest.raises(ModelSupportError, match=rf"\({family}ForSequenceClassification\) .*({reason}).*mx.black_box"):
        mx.load_classifier(name, device="cpu")


def test_an_end_of_text_that_is_taken_for_padding_is_refused(tmp_path):
    """Hugging Face reads the class at the last token that is no padding; embeddings do not say which that is."""
    tokenizer = byte_pair_tokenizer()
    end = tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    settings = {**CONTEXT, "tokenizer": tokenizer, "pad_token_id": tokenizer.eos_token_id}
    name = write(tmp_path / "mine", "LlamaForSequenceClassification", **settings)
    with pytest.raises(ModelSupportError, match="its outputs for the embeddings of a text are not"):
        mx.load_classifier(name, device="cpu")


@pytest.mark.parametrize(
    ("family", "settings"), [("FNet", CONTEXT), ("ConvBert", {**CONTEXT, "embedding_size": 64}), ("Qwen3Next", LINEAR)]
)
def test_patterns_that_a_model_does_not_have_are_refused(tmp_path, family, settings):
    name = write(tmp_path / "mine", f"{family}ForSequenceClassification", **settings)
    model = mx.load_classifier(name, device="cpu")
    with pytest.raises(ModelSupportError, match=rf"{family}ForSequenceClassification does not give the attention"):
        mx.AttentionRollout()(model, mx.tasks.prompts(model, texts=TEXTS))


def test_experts_are_counted(tmp_path):
    settings = {**CONTEXT, "num_local_experts": 4, "num_key_value_heads": 2}
    name = write(tmp_path / "mine", "MixtralForSequenceClassification", **settings)
    assert mx.load_classifier(name, device="cpu").architecture.n_experts == 4


def pooled(hf, model, text):
    row = torch.tensor([model.text.ids(text)])
    with torch.no_grad():
        mean = hf(row, attention_mask=torch.ones_like(row)).last_hidden_state.mean(1)
    return mean / mean.norm()


@pytest.mark.parametrize("both_halves", [False, True])
def test_the_encoder_of_an_encoder_decoder(tmp_path, both_halves):
    """A checkpoint of the encoder alone loads; its configuration may still say is_encoder_decoder (sentence-t5)."""
    sizes = {"d_model": 64, "d_ff": 128, "num_layers": 2, "num_heads": 4, "d_kv": 16}
    name = write(tmp_path / "mine", "T5EncoderModel", **sizes)
    if both_halves:
        faults.set_config(tmp_path / "mine", is_encoder_decoder=True)
    model = mx.load_encoder(name, references=["a drink"], device="cpu")
    hf = transformers.T5EncoderModel.from_pretrained(name, attn_implementation="eager").eval()
    tokens, lengths = model.tokens(TEXTS)
    found = model.logits(tokens, lengths=lengths)[:, 0, 0]
    expected = torch.cat([pooled(hf, model, text) @ pooled(hf, model, "a drink").T for text in TEXTS])[:, 0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert not model.architecture.causal
    with pytest.raises(ModelSupportError, match=r"no classification head|is an encoder-decoder model"):
        mx.load_classifier(name, device="cpu")


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_a_zero_padding_token_in_a_model_without_biases(tmp_path, pooling):
    """The baseline is the padding token; its embedding, and then the text's, is the zero vector: similar to nothing."""
    settings = {**CONTEXT, "num_key_value_heads": 2, "head_dim": 16, "tokenizer": byte_pair_tokenizer()}
    name = write(tmp_path / "mine", "Qwen3Model", **settings)
    faults.edit_tensors(tmp_path / "mine", lambda tensors: tensors["embed_tokens.weight"][0].zero_())
    model = mx.load_encoder(name, references=["a drink"], pooling=pooling, device="cpu")
    data = mx.GradientXInput()(model, mx.tasks.prompts(model, texts=TEXTS)).data
    assert data["baseline_score"].values == pytest.approx([0.0, 0.0], abs=1e-6)
    assert np.isfinite(data["target_score"].values).all()


def test_images_are_no_text(tmp_path):
    sizes = {"image_size": 28, "patch_size": 14, "num_channels": 3}
    name = write(tmp_path / "mine", "ViTModel", **sizes)
    faults.set_config(tmp_path / "mine", vocab_size=None)
    for load in (mx.load_classifier, lambda name, **more: mx.load_encoder(name, references=["a"], **more)):
        with pytest.raises(ModelSupportError, match=r"\(ViTModel\) cannot be loaded: it does not read tokens \(vit\)"):
            load(name, device="cpu")


def test_the_encoder_of_a_multimodal_checkpoint_ignores_its_head(tmp_path):
    from tests.model.checkpoint.test_text_model import FAMILIES, written

    _, text, vision, settings = FAMILIES["LlavaForConditionalGeneration"]
    hf = written(tmp_path / "mine", "LlavaForConditionalGeneration", text, vision, **settings)
    model = mx.load_encoder(str(tmp_path / "mine"), references=["a drink"], device="cpu")
    assert model.architecture.n_layers == text["num_hidden_layers"]
    tokens, lengths = model.tokens(TEXTS[:1])
    found = model.logits(tokens, lengths=lengths)[0, 0, 0]
    expected = pooled(hf.model, model, TEXTS[0]) @ pooled(hf.model, model, "a drink").T
    assert float(found) == pytest.approx(float(expected), abs=1e-5)
