"""Decoders with experts, latent attention, state-space layers or linear attention."""

from tests.families.dense_decoders import LLAMA3_ROTARY, MULTIPLIERS, SLIDING_OUTSIDE
from tests.families.family import (
    GROUPED,
    MLP_WIDTH,
    N_CTX,
    N_HEADS,
    N_KV_HEADS,
    N_LAYERS,
    PAD,
    ROTARY,
    SIZES,
    WIDTH,
    WINDOW,
    Family,
    causal,
)

FOUR_LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
FOUR = {"num_experts": 4, "num_experts_per_tok": 2}
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
}
LINEAR_ATTENTION = {
    "head_dim": 16,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
}

MIXTRAL = causal("MixtralForCausalLM", "MixtralConfig", "bos", sliding_window=None, **FOUR_LOCAL, **GROUPED, **ROTARY)
GPT_OSS = causal(
    "GptOssForCausalLM", "GptOssConfig", "bos", head_dim=16, **FOUR_LOCAL, **SLIDING_OUTSIDE, **GROUPED, **ROTARY
)
QWEN2_MOE = causal(
    "Qwen2MoeForCausalLM",
    "Qwen2MoeConfig",
    "qwen",
    moe_intermediate_size=32,
    shared_expert_intermediate_size=32,
    **FOUR,
    **GROUPED,
    **ROTARY,
)
QWEN3_MOE = causal(
    "Qwen3MoeForCausalLM",
    "Qwen3MoeConfig",
    "qwen",
    moe_intermediate_size=32,
    decoder_sparse_step=1,
    head_dim=24,
    norm_topk_prob=True,
    **FOUR,
    **GROUPED,
    **ROTARY,
)
GRANITE_MOE = causal("GraniteMoeForCausalLM", "GraniteMoeConfig", **MULTIPLIERS, **FOUR_LOCAL, **GROUPED, **ROTARY)
OLMOE = causal("OlmoeForCausalLM", "OlmoeConfig", **FOUR, **GROUPED, **ROTARY)

EXPERTS: dict[str, Family] = {
    "mixtral": MIXTRAL,
    "qwen2-moe": QWEN2_MOE,
    "qwen3-moe": QWEN3_MOE,
    "gpt-oss": GPT_OSS,
    "granite-moe": GRANITE_MOE,
    "olmoe": OLMOE,
    "phimoe": causal(
        "PhimoeForCausalLM", "PhimoeConfig", "bos", sliding_window=None, **FOUR_LOCAL, **GROUPED, **ROTARY
    ),
    "llama4": causal(
        "Llama4ForCausalLM",
        "Llama4TextConfig",
        "bos",
        **PAD,
        num_local_experts=2,
        num_experts_per_tok=1,
        intermediate_size_mlp=MLP_WIDTH,
        head_dim=16,
        interleave_moe_layer_step=1,
        attention_chunk_size=WINDOW,
        **GROUPED,
    ),
    "dbrx": causal(
        "DbrxForCausalLM",
        "DbrxConfig",
        d_model=WIDTH,
        n_heads=N_HEADS,
        n_layers=N_LAYERS,
        max_seq_len=N_CTX,
        attn_config={"kv_n_heads": N_KV_HEADS, "rope_theta": 10000.0, "clip_qkv": 8},
        ffn_config={"ffn_hidden_size": MLP_WIDTH, "moe_num_experts": 4, "moe_top_k": 2},
    ),
    "ernie4.5-moe": causal(
        "Ernie4_5_MoeForCausalLM",
        "Ernie4_5_MoeConfig",
        "bos",
        **PAD,
        moe_num_experts=4,
        moe_k=2,
        moe_intermediate_size=32,
        moe_num_shared_experts=1,
        moe_layer_start_index=1,
        head_dim=16,
        **GROUPED,
        **ROTARY,
    ),
    "glm4-moe": causal(
        "Glm4MoeForCausalLM",
        "Glm4MoeConfig",
        "bos",
        **PAD,
        n_routed_experts=4,
        n_shared_experts=1,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        moe_intermediate_size=32,
        first_k_dense_replace=1,
        head_dim=16,
        use_qk_norm=True,
        **GROUPED,
        **ROTARY,
    ),
    "deepseek-v2": causal(
        "DeepseekV2ForCausalLM",
        "DeepseekV2Config",
        "bos",
        **PAD,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        moe_intermediate_size=32,
        first_k_dense_replace=1,
        num_key_value_heads=N_HEADS,
        **LATENT,
        **SIZES,
        **ROTARY,
    ),
    "deepseek-v3": causal(
        "DeepseekV3ForCausalLM",
        "DeepseekV3Config",
        "bos",
        **PAD,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        moe_intermediate_size=32,
        first_k_dense_replace=1,
        num_key_value_heads=N_HEADS,
        **LATENT,
        **SIZES,
        **ROTARY,
    ),
}

RECURRENT: dict[str, Family] = {
    "mamba": causal("MambaForCausalLM", "MambaConfig", hidden_size=WIDTH, num_hidden_layers=N_LAYERS, state_size=8),
    "mamba2": causal(
        "Mamba2ForCausalLM",
        "Mamba2Config",
        hidden_size=WIDTH,
        num_hidden_layers=N_LAYERS,
        state_size=8,
        num_heads=8,
        head_dim=16,
        n_groups=1,
        chunk_size=8,
    ),
    "falcon-mamba": causal(
        "FalconMambaForCausalLM", "FalconMambaConfig", hidden_size=WIDTH, num_hidden_layers=N_LAYERS, state_size=8
    ),
    "rwkv": causal(
        "RwkvForCausalLM",
        "RwkvConfig",
        hidden_size=WIDTH,
        attention_hidden_size=WIDTH,
        num_hidden_layers=N_LAYERS,
        context_length=N_CTX,
    ),
    "jamba": causal(
        "JambaForCausalLM",
        "JambaConfig",
        "bos",
        num_experts=2,
        attn_layer_period=2,
        attn_layer_offset=1,
        mamba_d_state=8,
        use_mamba_kernels=False,
        **GROUPED,
    ),
    "bamba": causal(
        "BambaForCausalLM",
        "BambaConfig",
        "bos",
        attn_layer_indices=[1],
        mamba_n_heads=8,
        mamba_d_head=16,
        mamba_d_state=8,
        mamba_chunk_size=8,
        **GROUPED,
    ),
    "recurrent-gemma": causal(
        "RecurrentGemmaForCausalLM",
        "RecurrentGemmaConfig",
        "bos",
        block_types=["recurrent", "recurrent", "attention"],
        lru_width=WIDTH,
        attention_window_size=WINDOW,
        head_dim=16,
        **{name: value for name, value in GROUPED.items() if name != "max_position_embeddings"},
    ),
    "lfm2": causal("Lfm2ForCausalLM", "Lfm2Config", "bos", full_attn_idxs=[1], **GROUPED),
    "qwen3-next": causal(
        "Qwen3NextForCausalLM",
        "Qwen3NextConfig",
        "qwen",
        moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
        **FOUR,
        **LINEAR_ATTENTION,
        **GROUPED,
    ),
    "qwen3.5": causal("Qwen3_5ForCausalLM", "Qwen3_5TextConfig", "qwen", **LINEAR_ATTENTION, **GROUPED),
}

SWITCHES: dict[str, Family] = {
    "mixtral-window": MIXTRAL.variant(sliding_window=WINDOW),
    "mixtral-llama3-rope": MIXTRAL.variant(rope_parameters=LLAMA3_ROTARY),
    "qwen3-moe-unnormalised": QWEN3_MOE.variant(norm_topk_prob=False),
    "qwen3-moe-mixed": QWEN3_MOE.variant(mlp_only_layers=[1]),
    "olmoe-normalised": OLMOE.variant(norm_topk_prob=True),
}
