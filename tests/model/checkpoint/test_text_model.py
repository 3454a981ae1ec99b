"""Multimodal checkpoints load the text model inside them: its logits are the whole model's on text."""

import pytest
import torch
import transformers

import mechxai as mx
from mechxai.core.errors import ModelSupportError
from tests.checkpoints import byte_pair_tokenizer

VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION |= {"image_size": 28, "patch_size": 14}
QWEN_VISION = {"depth": 1, "num_heads": 2, "patch_size": 14}
WIDE_QWEN_VISION = {**QWEN_VISION, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 64}
TOKENS = {"image_token_id": 511, "video_token_id": 510, "vision_start_token_id": 509, "vision_end_token_id": 508}
SECTIONS = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}}


def text(**more):
    sizes = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    return {**sizes, **heads, **ids, **more}


# class -> the text model's class, settings of the text, of the vision tower, of the whole
FAMILIES = {
    "Gemma3ForConditionalGeneration": (
        "Gemma3ForCausalLM",
        text(head_dim=16, sliding_window=8, query_pre_attn_scalar=20),
        {**VISION, "vision_use_head": False},
        {"mm_tokens_per_image": 4, "image_token_index": 511, "boi_token_index": 510, "eoi_token_index": 509},
    ),
    "Mistral3ForConditionalGeneration": (
        "MistralForCausalLM",
        text(model_type="mistral", head_dim=16),
        {"model_type": "pixtral", **VISION},
        {"image_token_index": 511},
    ),
    "LlavaForConditionalGeneration": (
        "LlamaForCausalLM",
        text(model_type="llama"),
        {"model_type": "clip_vision_model", **VISION},
        {"image_token_index": 511},
    ),
    "Llama4ForConditionalGeneration": (
        "Llama4ForCausalLM",
        text(head_dim=16, num_local_experts=2, intermediate_size_mlp=128, attention_chunk_size=8),
        {**VISION, "projector_input_dim": 32, "projector_output_dim": 64, "vision_output_dim": 64},
        {},
    ),
    "Qwen2_5_VLForConditionalGeneration": (
        "Qwen2ForCausalLM",
        text(**SECTIONS),
        WIDE_QWEN_VISION,
        TOKENS,
    ),
    "Qwen2VLForConditionalGeneration": (
        "Qwen2ForCausalLM",
        text(**SECTIONS),
        {**QWEN_VISION, "embed_dim": 32, "hidden_size": 64},
        TOKENS,
    ),
    "Qwen3VLForConditionalGeneration": (
        "Qwen3ForCausalLM",
        text(head_dim=16, **SECTIONS),
        {**QWEN_VISION, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 64}
        | {"deepstack_visual_indexes": [0]},
        TOKENS,
    ),
}
PREFIX = (text(model_type="gemma", head_dim=16), {"model_type": "siglip_vision_model", **VISION})


def written(folder, family, text_settings, vision, **settings):
    """A random checkpoint of a multimodal family, and the model as transformers holds it."""
    torch.manual_seed(0)
    kind = getattr(transformers, family)
    model = kind(kind.config_class(text_config=text_settings, vision_config=vision, **settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.tie_weights()
    model.save_pretrained(folder)
    byte_pair_tokenizer().save_pretrained(folder)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_whole_models_on_text(tmp_path, family):
    causal, text_settings, vision, settings = FAMILIES[family]
    whole = written(tmp_path / "mine", family, text_settings, vision, **settings)
    model = mx.load(str(tmp_path / "mine"), device="cpu")
    assert model.architecture.family == causal
    tokens = torch.randint(10, 400, (3, 14), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = whole(input_ids=tokens).logits.log_softmax(-1)
    assert expected.std() > 0.1
    torch.testing.assert_close(model.logits(tokens).log_softmax(-1), expected, atol=1e-4, rtol=0)


def test_the_text_model_can_be_patched(tmp_path):
    """A patch of the whole residual stream at the last position moves everything: both are one model."""
    causal, text_settings, vision, settings = FAMILIES["LlavaForConditionalGeneration"]
    written(tmp_path / "mine", "LlavaForConditionalGeneration", text_settings, vision, **settings)
    model = mx.load(str(tmp_path / "mine"), device="cpu")
    tokens = torch.randint(10, 400, (2, 9), generator=torch.Generator().manual_seed(0))
    batch = mx.ContrastBatch.from_tokens(tokens, tokens.roll(1, 0), torch.tensor([5, 6]), torch.tensor([7, 8]))
    result = mx.ActivationPatching("resid_pre", ("layer",))(model, batch)
    assert result.data["recovered"].values == pytest.approx(1, abs=1e-4)
    assert causal == model.architecture.family


def test_a_prefix_model_is_refused(tmp_path):
    """PaliGemma reads a prompt in both directions; its text model alone would be causal."""
    written(tmp_path / "mine", "PaliGemmaForConditionalGeneration", *PREFIX, image_token_index=511, projection_dim=64)
    with pytest.raises(ModelSupportError, match=r"\(PaliGemma.*its text model alone gives other logits"):
        mx.load(str(tmp_path / "mine"), device="cpu")


def test_a_model_without_a_causal_text_model_is_refused(tmp_path):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(text_config={**sizes, "vocab_size": 512}, vision_config=VISION)
    transformers.CLIPModel(config).save_pretrained(tmp_path / "mine")
    with pytest.raises(ModelSupportError, match=r"\(CLIPModel\) cannot be loaded: clip is not a language model"):
        mx.load(str(tmp_path / "mine"), device="cpu")
