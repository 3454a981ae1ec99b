"""Configuration switches that change the numbers of a family: each variant differs from a family in `FAMILIES`."""

from tests.families import dense_decoders as dense
from tests.families import older_decoders as older
from tests.families import sparse_decoders as sparse
from tests.families.family import WINDOW, Family

LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 10}
PARTIAL = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}

SWITCHES: dict[str, Family] = {
    "gpt2-inverse-layer": older.GPT2.variant(scale_attn_by_inverse_layer_idx=True, reorder_and_upcast_attn=True),
    "gpt2-unscaled": older.GPT2.variant(scale_attn_weights=False),
    "gpt2-untied": older.GPT2.variant(tie_word_embeddings=False),
    "gpt2-relu": older.GPT2.variant(activation_function="relu", n_inner=96),
    "gptj-rotary-all": older.GPTJ.variant(rotary_dim=16),
    "gptneo-wide": older.GPT_NEO,
    "neox-serial": older.NEOX.variant(use_parallel_residual=False),
    "neox-tied": older.NEOX.variant(tie_word_embeddings=True, rotary_pct=1.0, attention_bias=False),
    "opt-post-norm": older.OPT.variant(do_layer_norm_before=False),
    "opt-350m": older.OPT.variant(do_layer_norm_before=False, word_embed_proj_dim=32),
    "opt-projected": older.OPT.variant(word_embed_proj_dim=32),
    "opt-no-bias": older.OPT.variant(enable_bias=False, layer_norm_elementwise_affine=False),
    "bloom-post-norm-residual": older.BLOOM.variant(apply_residual_connection_post_layernorm=True),
    "falcon-bias": older.FALCON_7B.variant(bias=True),
    "falcon-serial": older.FALCON_7B.variant(parallel_attn=False),
    "falcon-11b": older.FALCON_40B.variant(num_ln_in_parallel_attn=1),
    "llama-bias": dense.LLAMA.variant(attention_bias=True, mlp_bias=True),
    "llama-linear": dense.LLAMA.variant(rope_parameters=LINEAR),
    "llama-dynamic": dense.LLAMA.variant(rope_parameters=DYNAMIC),
    "llama-yarn": dense.LLAMA.variant(rope_parameters=dense.YARN),
    "llama-head-dim": dense.LLAMA.variant(head_dim=8),
    "llama-gelu": dense.LLAMA.variant(hidden_act="gelu"),
    "mistral-head-dim": dense.MISTRAL.variant(sliding_window=None, head_dim=24),
    "qwen2-window": dense.QWEN2.variant(use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1),
    "qwen2-untied": dense.QWEN2.variant(tie_word_embeddings=False),
    "qwen3-window": dense.QWEN3.variant(use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1),
    "qwen3-bias": dense.QWEN3.variant(attention_bias=True, tie_word_embeddings=False),
    "gemma2-no-caps": dense.GEMMA2.variant(final_logit_softcapping=None, attn_logit_softcapping=None),
    "gemma2-full": dense.GEMMA2.variant(layer_types=["full_attention"] * 3),
    "gemma3-capped": dense.GEMMA3.variant(final_logit_softcapping=5.0, attn_logit_softcapping=5.0),
    "gemma3-linear": dense.GEMMA3.variant(
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
        }
    ),
    "phi3-partial": dense.PHI3.variant(rope_parameters=PARTIAL, partial_rotary_factor=0.5),
    "phi3-window": dense.PHI3.variant(sliding_window=WINDOW),
    "olmo-clip": dense.OLMO.variant(clip_qkv=0.5),
    "olmo3-yarn": dense.OLMO3.variant(rope_parameters=dense.YARN),
    "stablelm-qk-norm": dense.STABLELM.variant(qk_layernorm=True),
    "stablelm-parallel": dense.STABLELM.variant(use_parallel_residual=True),
    "stablelm-no-bias": dense.STABLELM.variant(use_qkv_bias=False),
    "cohere-qk-norm": dense.COHERE.variant(use_qk_norm=True),
    "cohere-bias": dense.COHERE.variant(attention_bias=True, logit_scale=2.0),
    "granite-bias": dense.GRANITE.variant(attention_bias=True, mlp_bias=True),
    "smollm3-window": dense.SMOLLM3.variant(
        use_sliding_window=True, sliding_window=WINDOW, layer_types=dense.SLIDING_OUTSIDE["layer_types"]
    ),
    "exaone4-full": dense.EXAONE4.variant(sliding_window=None, layer_types=["full_attention"] * 3),
    "mpt-wide": older.MPT.variant(expansion_ratio=2, attn_config={"clip_qkv": 0.5}),
    "gpt2-large-eps": older.GPT2.variant(layer_norm_epsilon=0.1),
    "gpt2-one-layer": older.GPT2.variant(n_layer=1),
    "neox-large-eps": older.NEOX.variant(layer_norm_eps=0.1),
    "llama-large-eps": dense.LLAMA.variant(rms_norm_eps=0.1),
    "llama-one-kv-head": dense.LLAMA.variant(num_key_value_heads=1),
    "llama-one-layer": dense.LLAMA.variant(num_hidden_layers=1),
    "llama-rope-theta": dense.LLAMA.variant(rope_parameters={"rope_type": "default", "rope_theta": 50.0}),
    "qwen3-large-eps": dense.QWEN3.variant(rms_norm_eps=0.1),
    "qwen3-one-kv-head": dense.QWEN3.variant(num_key_value_heads=1),
    "gemma2-large-eps": dense.GEMMA2.variant(rms_norm_eps=0.1),
    "gemma3-large-eps": dense.GEMMA3.variant(rms_norm_eps=0.1),
    "olmo3-large-eps": dense.OLMO3.variant(rms_norm_eps=0.1),
    "stablelm-all": dense.STABLELM.variant(qk_layernorm=True, use_parallel_residual=True),
    "granite-large-multipliers": dense.GRANITE.variant(residual_multiplier=2.0, logits_scaling=0.5),
    "gpt-oss-full": sparse.GPT_OSS.variant(layer_types=["full_attention"] * 3),
    "gpt-oss-yarn": sparse.GPT_OSS.variant(rope_parameters=dense.YARN),
    **sparse.SWITCHES,
}
