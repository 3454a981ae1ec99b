"""Multimodal models, of which MechXAI loads the text model inside."""

from tests.families.dense_decoders import SLIDING_FIRST
from tests.families.family import GROUPED, Family, causal

TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = {**TOWER, "image_size": 28, "patch_size": 14}
QWEN_VISION = {"depth": 1, "num_heads": 2, "patch_size": 14, "hidden_size": 32, "intermediate_size": 64}
QWEN_TOKENS = {"image_token_id": 511, "video_token_id": 510, "vision_start_token_id": 509, "vision_end_token_id": 508}
SECTIONS = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}

FAMILIES: dict[str, Family] = {
    "gemma3-vision": causal(
        "Gemma3ForConditionalGeneration",
        "Gemma3Config",
        "bos",
        text_config={**GROUPED, **SLIDING_FIRST, "head_dim": 24, "query_pre_attn_scalar": 20},
        vision_config={**VISION, "vision_use_head": False},
        mm_tokens_per_image=4,
        image_token_index=511,
        boi_token_index=510,
        eoi_token_index=509,
    ),
    "mistral3": causal(
        "Mistral3ForConditionalGeneration",
        "Mistral3Config",
        "bos",
        text_config={**GROUPED, "model_type": "mistral", "head_dim": 16},
        vision_config={"model_type": "pixtral", **VISION},
        image_token_index=511,
    ),
    "llava": causal(
        "LlavaForConditionalGeneration",
        "LlavaConfig",
        "bos",
        text_config={**GROUPED, "model_type": "llama"},
        vision_config={"model_type": "clip_vision_model", **VISION},
        image_token_index=511,
    ),
    "qwen2.5-vl": causal(
        "Qwen2_5_VLForConditionalGeneration",
        "Qwen2_5_VLConfig",
        "qwen",
        text_config={**GROUPED, "rope_parameters": SECTIONS},
        vision_config={**QWEN_VISION, "out_hidden_size": 64},
        **QWEN_TOKENS,
    ),
    "qwen3-vl": causal(
        "Qwen3VLForConditionalGeneration",
        "Qwen3VLConfig",
        "qwen",
        text_config={**GROUPED, "rope_parameters": SECTIONS, "head_dim": 16},
        vision_config={**QWEN_VISION, "out_hidden_size": 64, "deepstack_visual_indexes": [0]},
        **QWEN_TOKENS,
    ),
}
