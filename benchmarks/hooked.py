"""The model shapes as TransformerLens 3.9 models; a separate module, since TransformerLens 4 lacks that class."""

from transformer_lens import HookedTransformer, HookedTransformerConfig

from benchmarks.shapes import GPT2_SMALL, Shape, randomised


def hooked_transformer(shape: Shape, seed: int = 0) -> HookedTransformer:
    """A `HookedTransformer` of a shape, with random weights."""
    kind = (
        {
            "act_fn": "silu",
            "gated_mlp": True,
            "normalization_type": "RMS",
            "final_rms": True,
            "positional_embedding_type": "rotary",
            "rotary_dim": shape.d_head,
            "n_key_value_heads": shape.n_kv_heads,
        }
        if shape.llama
        else {"act_fn": "gelu_new", "normalization_type": "LNPre"}
    )
    config = HookedTransformerConfig(
        n_layers=shape.n_layers,
        d_model=shape.d_model,
        n_ctx=shape.n_ctx,
        d_head=shape.d_head,
        n_heads=shape.n_heads,
        d_mlp=shape.d_mlp,
        d_vocab=shape.d_vocab,
        seed=seed,
        device="cpu",  # the CPU generator draws the same numbers on every machine
        **kind,
    )
    return randomised(HookedTransformer(config), seed)


def small_model(seed: int = 0) -> HookedTransformer:
    """A model of the GPT-2-small shape with random weights."""
    return hooked_transformer(GPT2_SMALL, seed)
