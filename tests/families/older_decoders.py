"""Decoders with learned, fixed or ALiBi positions, and the first rotary ones."""

from tests.families.family import MLP_WIDTH, N_CTX, N_HEADS, N_LAYERS, SIZES, WIDTH, WINDOW, Family, causal

GPT2_SIZES = {"n_positions": N_CTX, "n_embd": WIDTH, "n_layer": N_LAYERS, "n_head": N_HEADS}
OPT_SIZES = {
    "hidden_size": WIDTH,
    "ffn_dim": MLP_WIDTH,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": N_HEADS,
    "max_position_embeddings": N_CTX,
}
FALCON_SIZES = {"hidden_size": WIDTH, "num_hidden_layers": N_LAYERS, "num_attention_heads": N_HEADS}

GPT2 = causal("GPT2LMHeadModel", "GPT2Config", **GPT2_SIZES)
GPTJ = causal("GPTJForCausalLM", "GPTJConfig", rotary_dim=8, **GPT2_SIZES)
GPT_NEO = causal(
    "GPTNeoForCausalLM",
    "GPTNeoConfig",
    hidden_size=WIDTH,
    num_layers=2,
    num_heads=N_HEADS,
    max_position_embeddings=N_CTX,
    attention_types=[[["global", "local"], 1]],
    window_size=WINDOW,
)
NEOX = causal("GPTNeoXForCausalLM", "GPTNeoXConfig", use_parallel_residual=True, rotary_pct=0.25, **SIZES)
OPT = causal("OPTForCausalLM", "OPTConfig", word_embed_proj_dim=WIDTH, **OPT_SIZES)
BLOOM = causal("BloomForCausalLM", "BloomConfig", hidden_size=WIDTH, n_layer=N_LAYERS, n_head=N_HEADS)
MPT = causal("MptForCausalLM", "MptConfig", d_model=WIDTH, n_heads=N_HEADS, n_layers=N_LAYERS, max_seq_len=N_CTX)
FALCON_7B = causal(
    "FalconForCausalLM",
    "FalconConfig",
    multi_query=True,
    parallel_attn=True,
    bias=False,
    new_decoder_architecture=False,
    alibi=False,
    **FALCON_SIZES,
)
FALCON_40B = FALCON_7B.variant(num_kv_heads=2, multi_query=False, new_decoder_architecture=True)

FAMILIES: dict[str, Family] = {
    "gpt2": GPT2,
    "gptj": GPTJ,
    "gptneo": GPT_NEO.variant(intermediate_size=MLP_WIDTH),
    "neox": NEOX,
    "opt": OPT,
    "bloom": BLOOM,
    "mpt": MPT,
    "falcon": FALCON_7B,
    "falcon-40b": FALCON_40B,
    "falcon-alibi": FALCON_7B.variant(multi_query=False, parallel_attn=False, bias=True, alibi=True),
    "codegen": causal("CodeGenForCausalLM", "CodeGenConfig", rotary_dim=8, n_ctx=N_CTX, **GPT2_SIZES),
    "gpt-bigcode": causal("GPTBigCodeForCausalLM", "GPTBigCodeConfig", **GPT2_SIZES),
    "openai-gpt": causal("OpenAIGPTLMHeadModel", "OpenAIGPTConfig", **GPT2_SIZES),
    "xglm": causal(
        "XGLMForCausalLM",
        "XGLMConfig",
        "bos",
        d_model=WIDTH,
        ffn_dim=MLP_WIDTH,
        num_layers=N_LAYERS,
        attention_heads=N_HEADS,
        max_position_embeddings=N_CTX,
    ),
    "biogpt": causal("BioGptForCausalLM", "BioGptConfig", "bos", **SIZES),
    "ctrl": causal(
        "CTRLLMHeadModel",
        "CTRLConfig",
        n_positions=N_CTX,
        n_embd=WIDTH,
        dff=MLP_WIDTH,
        n_layer=N_LAYERS,
        n_head=N_HEADS,
    ),
    "xlnet": causal(
        "XLNetLMHeadModel", "XLNetConfig", "bos", d_model=WIDTH, n_layer=N_LAYERS, n_head=N_HEADS, d_inner=MLP_WIDTH
    ),
}
