"""Where each architecture of transformers keeps the modules of a block, by the configuration's ``model_type``."""

from dataclasses import replace
from typing import Any

from tests.families.edge_oracle import LLAMA, Names

GPT2 = Names(
    layers="transformer.h",
    final="transformer.ln_f",
    norm1="ln_1",
    norm2="ln_2",
    o="attn.c_proj",
    q="attn.c_attn",
    k="attn.c_attn",
    v="attn.c_attn",
    down="mlp.c_proj",
    fused="stacked",
)
GPTJ = Names(
    layers="transformer.h",
    final="transformer.ln_f",
    norm1="ln_1",
    norm2="ln_1",
    o="attn.out_proj",
    q="attn.q_proj",
    k="attn.k_proj",
    v="attn.v_proj",
    down="mlp.fc_out",
)
NEOX = Names(
    layers="gpt_neox.layers",
    final="gpt_neox.final_layer_norm",
    o="attention.dense",
    q="attention.query_key_value",
    k="attention.query_key_value",
    v="attention.query_key_value",
    down="mlp.dense_4h_to_h",
    fused="per head",
)
OPT = Names(
    layers="model.decoder.layers",
    final="model.decoder.final_layer_norm",
    norm1="self_attn_layer_norm",
    norm2="final_layer_norm",
    o="self_attn.out_proj",
    mlp_in="fc1",
    mlp_out="fc2",
    down="fc2",
)
FALCON = Names(
    layers="transformer.h",
    final="transformer.ln_f",
    o="self_attention.dense",
    q="self_attention.query_key_value",
    k="self_attention.query_key_value",
    v="self_attention.query_key_value",
    down="mlp.dense_4h_to_h",
    fused="per head",
)
BLOOM = replace(FALCON, mlp_out="mlp.dense_4h_to_h")  # the MLP itself adds the residual stream
MPT = Names(
    layers="transformer.blocks",
    final="transformer.norm_f",
    norm1="norm_1",
    norm2="norm_2",
    o="attn.out_proj",
    mlp_in="ffn",
    mlp_out="ffn.down_proj",  # the module itself adds the residual stream
    q="attn.Wqkv",
    k="attn.Wqkv",
    v="attn.Wqkv",
    down="ffn.down_proj",
    fused="stacked",
)
PARALLEL = replace(LLAMA, norm2="input_layernorm")
POST_NORM = replace(LLAMA, norm1="", norm2="")
SANDWICH = replace(LLAMA, norm2="pre_feedforward_layernorm")
EXPERTS = replace(LLAMA, down="")  # no single down projection
PHI3 = replace(LLAMA, q="self_attn.qkv_proj", k="self_attn.qkv_proj", v="self_attn.qkv_proj", fused="stacked")
PERSIMMON = replace(
    LLAMA,
    final="model.final_layernorm",
    o="self_attn.dense",
    q="self_attn.query_key_value",
    k="self_attn.query_key_value",
    v="self_attn.query_key_value",
    down="mlp.dense_4h_to_h",
    fused="per head",
)
XGLM = replace(OPT, layers="model.layers", final="model.layer_norm")
MAMBA = Names(layers="backbone.layers", final="backbone.norm_f", o="", q="", k="", v="", down="")
MASKED = replace(MAMBA, final="")

INSIDE = {"layers": "model.language_model.layers", "final": "model.language_model.norm"}

LAYOUTS: dict[str, Names] = {
    "gpt2": GPT2,
    "gpt_bigcode": GPT2,
    "openai-gpt": replace(GPT2, final="", norm1="", norm2=""),
    "gptj": GPTJ,
    "codegen": replace(GPTJ, q="attn.qkv_proj", k="attn.qkv_proj", v="attn.qkv_proj", fused="codegen"),
    "gpt_neo": replace(
        GPT2,
        o="attn.attention.out_proj",
        q="attn.attention.q_proj",
        k="attn.attention.k_proj",
        v="attn.attention.v_proj",
        fused="",
    ),
    "gpt_neox": NEOX,
    "opt": OPT,
    "bloom": BLOOM,
    "mpt": MPT,
    "xglm": XGLM,
    "biogpt": replace(XGLM, layers="biogpt.layers", final="biogpt.layer_norm"),
    "falcon": FALCON,  # further by its configuration
    "gemma2": SANDWICH,
    "gemma3_text": SANDWICH,
    "vaultgemma": SANDWICH,
    "phi": replace(PARALLEL, final="model.final_layernorm", o="self_attn.dense", mlp_out="mlp", down="mlp.fc2"),
    "phi3": PHI3,
    "gemma3": replace(SANDWICH, **INSIDE),
    "mistral3": replace(LLAMA, **INSIDE),
    "llava": replace(LLAMA, **INSIDE),
    "qwen2_5_vl": replace(LLAMA, **INSIDE),
    "qwen3_vl": replace(LLAMA, **INSIDE),
    "olmo2": POST_NORM,
    "olmo3": POST_NORM,
    "exaone4": POST_NORM,
    "cohere": PARALLEL,
    "cohere2": PARALLEL,
    "starcoder2": replace(LLAMA, down="mlp.c_proj"),
    "persimmon": PERSIMMON,
    "apertus": replace(LLAMA, norm1="attention_layernorm", norm2="feedforward_layernorm"),
    "nanochat": replace(LLAMA, down="mlp.fc2"),
    "mixtral": EXPERTS,
    "qwen2_moe": EXPERTS,
    "qwen3_moe": EXPERTS,
    "qwen3_next": EXPERTS,
    "gpt_oss": EXPERTS,
    "olmoe": EXPERTS,
    "phimoe": EXPERTS,
    "ernie4_5_moe": EXPERTS,
    "glm4_moe": EXPERTS,
    "deepseek_v2": EXPERTS,
    "deepseek_v3": EXPERTS,
    "granitemoe": replace(EXPERTS, mlp_in="block_sparse_moe", mlp_out="block_sparse_moe"),
    "llama4_text": replace(EXPERTS, mlp_in="feed_forward", mlp_out="feed_forward"),
    "mamba": MAMBA,
    "mamba2": MAMBA,
    "falcon_mamba": MAMBA,
    "bert": replace(MASKED, layers="bert.encoder.layer", o="attention.output.dense", down="output.dense"),
    "roberta": replace(MASKED, layers="roberta.encoder.layer", o="attention.output.dense", down="output.dense"),
    "xlm-roberta": replace(MASKED, layers="roberta.encoder.layer", o="attention.output.dense", down="output.dense"),
    "electra": replace(MASKED, layers="electra.encoder.layer", o="attention.output.dense", down="output.dense"),
    "deberta-v2": replace(MASKED, layers="deberta.encoder.layer", o="attention.output.dense", down="output.dense"),
    "distilbert": replace(MASKED, layers="distilbert.transformer.layer", o="attention.out_lin", down="ffn.lin2"),
    "modernbert": replace(MASKED, layers="model.layers", o="attn.Wo", down="mlp.Wo"),
}


def names_of(hf: Any) -> Names | None:
    """Names of the modules of a model; None for an architecture without such blocks."""
    names = LAYOUTS.get(hf.config.model_type, LLAMA)
    config = hf.config
    if config.model_type == "falcon":
        names = _falcon(config)
    elif config.model_type == "gpt_neox" and config.use_parallel_residual:
        names = replace(names, norm2="post_attention_layernorm")
    elif config.model_type == "stablelm" and config.use_parallel_residual:
        names = PARALLEL
    elif config.model_type == "gpt_bigcode" and not config.multi_query:
        names = replace(names, fused="per head")
    try:
        hf.get_submodule(names.layers)
    except AttributeError:
        return None
    return names


def _falcon(config: Any) -> Names:
    if config.new_decoder_architecture:
        norms = ("ln_attn", "ln_mlp") if config.num_ln_in_parallel_attn != 1 else ("input_layernorm",) * 2
        return replace(FALCON, norm1=norms[0], norm2=norms[1], fused="grouped")
    norm2 = "input_layernorm" if config.parallel_attn else "post_attention_layernorm"
    return replace(FALCON, norm2=norm2, fused="stacked" if config.multi_query else "per head")
