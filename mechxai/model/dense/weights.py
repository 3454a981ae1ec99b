"""`read_dense`: dense blocks as views of a model's weights; norms are recognised by what they compute.

Both TransformerLens objects use the same names for weights (``W_Q``, ``W_in`` ...), so one reader serves both.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mechxai.core.architecture import Architecture
from mechxai.model.dense.blocks import Affine, DenseBlock, DenseModel, Norm, Rotary

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu": F.gelu,
    "silu": F.silu,
    "swish": F.silu,
    "relu": F.relu,
}
# TransformerLens settings that dense blocks do not cover
_UNSUPPORTED = (
    "use_qk_norm",
    "use_normalization_before_and_after",
    "use_attention_sinks",
    "use_logn_attn",
    "use_dynamic_ntk_rope",
    "clip_qkv",
    "use_local_attn",
    "window_size",
    "num_experts",
)
_CLOSE = 1e-4


def read_dense(inner: Any, architecture: Architecture) -> DenseModel | None:
    """The model's blocks as plain tensors, or None for blocks that `DenseBlock` does not cover."""
    cfg = inner.cfg
    if any(getattr(cfg, name, None) for name in _UNSUPPORTED) or (getattr(cfg, "attn_scores_soft_cap", None) or 0) > 0:
        return None
    if not architecture.causal or architecture.positions not in ("standard", "rotary", "none"):
        return None
    if not architecture.attn_only and str(cfg.act_fn) not in _ACTIVATIONS:
        return None
    with torch.no_grad():
        blocks = [_block(inner, block, architecture) for block in inner.blocks]
        final = norm_of(getattr(inner, "ln_final", None), architecture, cfg)
    covered = [block for block in blocks if block is not None]
    if final is None or len(covered) < len(blocks):
        return None
    a = architecture
    return DenseModel(covered, final, a.n_heads, a.n_kv_heads, a.d_head, _longest(inner))


def _longest(inner: Any) -> int | None:
    """The shortest attention window, or length at which rotary tables change, in the configuration; None without."""
    config = getattr(getattr(inner, "original_model", None), "config", None)
    lengths = [getattr(config, name, None) for name in ("sliding_window", "window_size", "attention_chunk_size")]
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") in ("dynamic", "longrope"):
        name = "original_max_position_embeddings"
        lengths.append(rope.get(name) or getattr(config, name, None) or getattr(config, "max_position_embeddings", 1))
    return min((length for length in lengths if isinstance(length, int) and length > 0), default=None)


def _block(inner: Any, block: Any, a: Architecture) -> DenseBlock | None:
    attn: Any = block.attn
    mlp: Any = getattr(block, "mlp", None)
    norm1 = norm_of(getattr(block, "ln1", None), a, inner.cfg)
    norm2 = norm1 if a.attn_only or not hasattr(block, "ln2") else norm_of(block.ln2, a, inner.cfg)
    rotary = _rotary(inner, attn) if a.positions == "rotary" else None
    if norm1 is None or norm2 is None or (a.positions == "rotary" and rotary is None):
        return None
    keys = [getattr(attn, f"_W_{name}", None) for name in "KV"]
    key, value = (
        weight if weight is not None else getattr(attn, f"W_{name}") for weight, name in zip(keys, "KV", strict=True)
    )
    biases = [_bias(attn, f"_b_{name}", f"b_{name}") for name in "QKV"]
    if a.attn_only:
        mlp_in = mlp_linear = mlp_out = mlp_bias = None
    else:
        gate = getattr(mlp, "W_gate", None)
        b_in = getattr(mlp, "b_in", None)
        first = mlp.W_in if gate is None else gate
        mlp_in = Affine(first.detach(), None if gate is not None or b_in is None else b_in.detach())
        mlp_linear = None if gate is None else Affine(mlp.W_in.detach(), None)
        mlp_bias = None if gate is None or b_in is None or not bool(b_in.any()) else b_in.detach()
        mlp_out = Affine(mlp.W_out.detach(), _detached(getattr(mlp, "b_out", None)))
    return DenseBlock(
        norm1,
        norm2,
        q=Affine(_by_head(attn.W_Q), biases[0]),
        k=Affine(_by_head(key), biases[1]),
        v=Affine(_by_head(value), biases[2]),
        o=Affine(attn.W_O.detach().reshape(-1, a.d_model), _detached(getattr(attn, "b_O", None))),
        mlp_in=mlp_in,
        mlp_linear=mlp_linear,
        mlp_bias=mlp_bias,
        mlp_out=mlp_out,
        activation=_ACTIVATIONS.get(str(inner.cfg.act_fn), F.relu),
        rotary=rotary,
        scale=_scale(attn, a),
        parallel=a.parallel,
    )


def _by_head(weight: Tensor) -> Tensor:
    """``[head, d_model, d_head]`` as the matrix ``[d_model, head * d_head]``; a view where the strides allow."""
    return weight.detach().permute(1, 0, 2).reshape(weight.shape[1], -1)


def _bias(module: Any, *names: str) -> Tensor | None:
    """The first bias that the module has, flat."""
    bias = next((value for name in names if (value := getattr(module, name, None)) is not None), None)
    return None if bias is None else bias.detach().reshape(-1)


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()


def _scale(attn: Any, a: Architecture) -> float:
    scale = getattr(attn, "attn_scale", None)  # HookedTransformer: what scores are divided by
    if isinstance(scale, (int, float)) and scale > 0:
        return 1.0 / float(scale)
    scaling = getattr(getattr(attn, "original_component", None), "scaling", None)
    return float(scaling) if isinstance(scaling, (int, float)) else a.d_head**-0.5


def norm_of(module: Any, a: Architecture, cfg: Any) -> Norm | None:
    """The norm that gives the module's outputs for random inputs; None where none does."""
    if module is None or a.norm == "none":
        return Norm("none", 0.0)
    original = getattr(module, "original_component", None) or module
    tensors = {name: getattr(original, name, None) for name in ("weight", "bias", "w", "b")}
    weight = _detached(tensors["weight"] if tensors["weight"] is not None else tensors["w"])
    bias = _detached(tensors["bias"] if tensors["bias"] is not None else tensors["b"])
    epsilons = [getattr(original, name, None) for name in ("eps", "variance_epsilon")]
    eps = next((float(value) for value in epsilons if value), cfg.eps)
    parameter = next(iter(module.parameters()), None)
    parameter = parameter if parameter is not None else next(iter(module.buffers()), torch.zeros(1))
    x = torch.randn(1, 4, a.d_model, generator=torch.Generator().manual_seed(0)).to(_like(module, parameter))
    expected = module(x)
    candidates = [Norm("LN", eps, weight, bias), Norm("LN", eps), Norm("RMS", eps, weight), Norm("RMS", eps)]
    if weight is not None:
        candidates.append(Norm("RMS", eps, 1 + weight))  # Gemma's
    for candidate in candidates:
        if candidate.kind == a.norm and torch.allclose(candidate(x), expected, rtol=_close(x), atol=_close(x)):
            return candidate
    return None


def _close(x: Tensor) -> float:
    return _CLOSE if x.dtype in (torch.float32, torch.float64) else 2e-2


def _like(module: Any, parameter: Tensor) -> Tensor:
    """A tensor of the module's dtype and device: of its parameters, or of its configuration where it has none."""
    cfg = getattr(module, "cfg", None) or getattr(module, "config", None)
    if parameter.is_floating_point() and parameter.numel() > 1:
        return parameter
    dtype = getattr(cfg, "dtype", torch.float32)
    return torch.zeros(1, dtype=dtype, device=getattr(cfg, "device", None) or "cpu")


def _rotary(inner: Any, attn: Any) -> Rotary | None:
    adjacent = bool(getattr(inner.cfg, "rotary_adjacent_pairs", False))
    if isinstance(getattr(attn, "rotary_cos", None), Tensor):  # HookedTransformer

        def hooked_transformer(n_pos: int) -> tuple[Tensor, Tensor]:
            if n_pos > len(attn.rotary_cos):
                attn._extend_rotary_embeddings(n_pos)  # as the forward pass does
            return attn.rotary_cos, attn.rotary_sin

        return Rotary(hooked_transformer, adjacent)
    module = getattr(getattr(inner, "rotary_emb", None), "original_component", None)
    if module is None:
        return None
    tables: dict[int, tuple[Tensor, Tensor]] = {}

    def hugging_face(n_pos: int) -> tuple[Tensor, Tensor]:
        longest = max(tables, default=0)
        if longest < n_pos:
            device = next(inner.parameters()).device
            dtype = next(inner.parameters()).dtype
            cos, sin = module(torch.zeros(1, dtype=dtype, device=device), torch.arange(n_pos, device=device)[None])
            tables.clear()
            tables[n_pos] = (cos[0], sin[0])
            longest = n_pos
        return tables[longest]

    return Rotary(hugging_face, adjacent)
