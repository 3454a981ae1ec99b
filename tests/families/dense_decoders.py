"""Decoders with rotary positions and one MLP a layer."""

from tests.families.family import GROUPED, N_HEADS, N_LAYERS, PAD, ROTARY, SIZES, WINDOW, Family, causal

SLIDING_FIRST = {
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
}
SLIDING_OUTSIDE = {
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
LLAMA3_ROTARY = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0 + 0.1 * i for i in range(8)],
    "long_factor": [2.0 + 0.3 * i for i in range(8)],
    "original_max_position_embeddings": 32,
}
MULTIPLIERS = {
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.1,
    "residual_multiplier": 0.5,
    "logits_scaling": 2.0,
}

LLAMA = causal("LlamaForCausalLM", "LlamaConfig", "bos", tie_word_embeddings=False, **GROUPED, **ROTARY)
MISTRAL = causal("MistralForCausalLM", "MistralConfig", "bos", tie_word_embeddings=False, **GROUPED, **ROTARY)
QWEN2 = causal("Qwen2ForCausalLM", "Qwen2Config", "qwen", tie_word_embeddings=True, **GROUPED, **ROTARY)
GEMMA2 = causal(
    "Gemma2ForCausalLM",
    "Gemma2Config",
    "bos",
    head_dim=24,
    sliding_window=WINDOW,
    query_pre_attn_scalar=20,
    final_logit_softcapping=5.0,
    attn_logit_softcapping=5.0,
    **GROUPED,
    **ROTARY,
)
PHI3 = causal("Phi3ForCausalLM", "Phi3Config", "bos", **PAD, sliding_window=None, **GROUPED, **ROTARY)
OLMO = causal("OlmoForCausalLM", "OlmoConfig", clip_qkv=None, **GROUPED, **ROTARY)
OLMO3 = causal("Olmo3ForCausalLM", "Olmo3Config", **SLIDING_FIRST, **GROUPED, **ROTARY)
STABLELM = causal("StableLmForCausalLM", "StableLmConfig", use_qkv_bias=True, **GROUPED)
COHERE = causal("CohereForCausalLM", "CohereConfig", "bos", logit_scale=0.3, **GROUPED, **ROTARY)
SMOLLM3 = causal("SmolLM3ForCausalLM", "SmolLM3Config", "bos", **PAD, no_rope_layers=[1, 0, 1], **GROUPED, **ROTARY)
EXAONE4 = causal("Exaone4ForCausalLM", "Exaone4Config", "bos", **PAD, **SLIDING_OUTSIDE, **GROUPED, **ROTARY)
GRANITE = causal("GraniteForCausalLM", "GraniteConfig", **MULTIPLIERS, **GROUPED, **ROTARY)
QWEN3 = causal("Qwen3ForCausalLM", "Qwen3Config", "qwen", tie_word_embeddings=True, head_dim=24, **GROUPED, **ROTARY)
GEMMA3 = causal(
    "Gemma3ForCausalLM",
    "Gemma3TextConfig",
    "bos",
    head_dim=24,
    query_pre_attn_scalar=20,
    **SLIDING_FIRST,
    **GROUPED,
)
GEMMA3N = causal(
    "Gemma3nForCausalLM",
    "Gemma3nTextConfig",
    "bos",
    head_dim=16,
    vocab_size_per_layer_input=512,
    hidden_size_per_layer_input=16,
    num_kv_shared_layers=0,
    laurel_rank=8,
    altup_num_inputs=2,
    activation_sparsity_pattern=[0.0] * N_LAYERS,
    **SLIDING_FIRST,
    **GROUPED,
)

FAMILIES: dict[str, Family] = {
    "llama3": LLAMA.variant(rope_parameters=LLAMA3_ROTARY),
    "llama2": causal("LlamaForCausalLM", "LlamaConfig", "bos", tie_word_embeddings=False, **SIZES, **ROTARY),
    "llama3-tied": LLAMA.variant(tie_word_embeddings=True, head_dim=24, rope_parameters=LLAMA3_ROTARY),
    "mistral-window": MISTRAL.variant(sliding_window=WINDOW),
    "mistral": MISTRAL.variant(sliding_window=None),
    "ministral": causal("MinistralForCausalLM", "MinistralConfig", "bos", head_dim=16, **SLIDING_OUTSIDE, **GROUPED),
    "qwen2": QWEN2.variant(use_sliding_window=False),
    "qwen2-yarn": QWEN2.variant(rope_parameters=YARN),
    "qwen3": QWEN3,
    "gemma": causal("GemmaForCausalLM", "GemmaConfig", "bos", head_dim=24, **GROUPED, **ROTARY),
    "gemma2": GEMMA2,
    "gemma3": GEMMA3,
    "gemma3n": GEMMA3N,
    "gemma4": causal("Gemma4ForCausalLM", "Gemma4TextConfig", "bos", head_dim=16, **SLIDING_FIRST, **GROUPED),
    "vaultgemma": causal("VaultGemmaForCausalLM", "VaultGemmaConfig", "bos", head_dim=16, **SLIDING_FIRST, **GROUPED),
    "phi": causal("PhiForCausalLM", "PhiConfig", partial_rotary_factor=0.5, **SIZES),
    "phi3": PHI3,
    "phi3-longrope": PHI3.variant(sliding_window=WINDOW, original_max_position_embeddings=32, rope_parameters=LONGROPE),
    "olmo": OLMO,
    "olmo2": causal("Olmo2ForCausalLM", "Olmo2Config", **GROUPED, **ROTARY),
    "olmo3": OLMO3,
    "stablelm": STABLELM,
    "granite": GRANITE,
    "smollm3": SMOLLM3,
    "cohere": COHERE,
    "cohere2": causal(
        "Cohere2ForCausalLM", "Cohere2Config", "bos", logit_scale=0.3, **SLIDING_OUTSIDE, **GROUPED, **ROTARY
    ),
    "glm": causal("GlmForCausalLM", "GlmConfig", "bos", **PAD, head_dim=16, **GROUPED, **ROTARY),
    "glm4": causal("Glm4ForCausalLM", "Glm4Config", "bos", **PAD, head_dim=16, **GROUPED, **ROTARY),
    "starcoder2": causal("Starcoder2ForCausalLM", "Starcoder2Config", sliding_window=WINDOW, **GROUPED, **ROTARY),
    "nemotron": causal("NemotronForCausalLM", "NemotronConfig", "bos", partial_rotary_factor=0.5, **GROUPED),
    "persimmon": causal("PersimmonForCausalLM", "PersimmonConfig", "bos", partial_rotary_factor=0.5, **SIZES),
    "exaone4": EXAONE4,
    "ernie4.5": causal("Ernie4_5ForCausalLM", "Ernie4_5Config", "bos", **PAD, head_dim=16, **GROUPED, **ROTARY),
    "seed-oss": causal("SeedOssForCausalLM", "SeedOssConfig", "bos", **PAD, head_dim=16, **GROUPED, **ROTARY),
    "apertus": causal("ApertusForCausalLM", "ApertusConfig", "bos", **PAD, **GROUPED),
    "hunyuan": causal(
        "HunYuanDenseV1ForCausalLM", "HunYuanDenseV1Config", "bos", **PAD, head_dim=16, **GROUPED, **ROTARY
    ),
    "arcee": causal("ArceeForCausalLM", "ArceeConfig", "bos", **GROUPED, **ROTARY),
    "helium": causal("HeliumForCausalLM", "HeliumConfig", "bos", **PAD, head_dim=16, **GROUPED, **ROTARY),
    "minicpm3": causal(
        "MiniCPM3ForCausalLM",
        "MiniCPM3Config",
        "bos",
        **PAD,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=16,
        num_key_value_heads=N_HEADS,
        **SIZES,
        **ROTARY,
    ),
    "diffllama": causal("DiffLlamaForCausalLM", "DiffLlamaConfig", "bos", **GROUPED, **ROTARY),
    "nanochat": causal("NanoChatForCausalLM", "NanoChatConfig", "bos", **PAD, **GROUPED, **ROTARY),
}
