"""`read_dense`: dense blocks composed from a model's own weights, as a recorded pass shows that they work together."""

from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch

from mechxai.core.architecture import Architecture
from mechxai.core.shapes import Tokens
from mechxai.model.backends.base import Backend
from mechxai.model.dense.blocks import DenseBlock, DenseModel
from mechxai.model.dense.fitting import AttentionParts, fitted_attention, fitted_mlp
from mechxai.model.dense.norms import called_norm, norm_of
from mechxai.model.dense.parts import Mlp
from mechxai.model.dense.read_bridge import BridgeReader
from mechxai.model.dense.read_hooked_transformer import HookedTransformerReader
from mechxai.model.dense.topology import Wiring, wiring
from mechxai.model.dense.trace import BlockTrace, NotCoveredError, traced_blocks


@runtime_checkable
class _PartsReader(Protocol):
    """Reads the parts of blocks of one kind of TransformerLens object."""

    def factors(self) -> list[float]: ...

    def attention(self, trace: BlockTrace, wired: Wiring) -> AttentionParts: ...

    def mlps(self, trace: BlockTrace) -> list[Mlp]: ...


def read_dense(backend: Backend, tokens: Tokens, *, longest: int | None) -> DenseModel:
    """The model's blocks as plain tensors. Cost: one forward pass over the tokens.

    Args:
        backend: the model.
        tokens: the prompt that the blocks are composed and tested on, longer than any window, where that is cheap.
        longest: the length up to which the blocks hold; None for any.

    Raises:
        NotCoveredError: the model is built of parts that dense blocks do not have; says which.
    """
    a, inner = backend.architecture(), backend.inner
    if not a.causal:
        raise NotCoveredError("attention is bidirectional")
    if a.positions not in ("standard", "rotary", "none", "alibi"):
        raise NotCoveredError(f"it has {a.positions} positions")
    reader: _PartsReader = BridgeReader(backend) if backend.name == "bridge" else HookedTransformerReader(backend)
    with torch.no_grad():
        factors = reader.factors()
        blocks = [
            _block(reader, trace, a, factors=factors, eps=_eps(inner)) for trace in traced_blocks(backend, tokens)
        ]
        final = norm_of(getattr(inner, "ln_final", None), a, inner.cfg)
    if final is None:
        raise NotCoveredError("the final norm is neither LayerNorm nor RMSNorm")
    return DenseModel(blocks, final, a.n_heads, a.n_kv_heads, a.d_head, longest)


def _eps(inner: Any) -> float:
    return float(getattr(inner.cfg, "eps", None) or 1e-5)


def _block(reader: _PartsReader, trace: BlockTrace, a: Architecture, *, factors: list[float], eps: float) -> DenseBlock:
    wired = wiring(trace, factors)
    if wired.mlp_read is not None and wired.parallel != a.parallel:
        raise NotCoveredError(f"a block is {'parallel' if wired.parallel else 'serial'}, unlike the others")
    if "z" not in trace.sites:
        raise NotCoveredError("a block has no heads")
    z = trace.sites["z"]
    if z.numel() != trace.residual.shape[0] * trace.residual.shape[1] * a.n_heads * a.d_head:
        raise NotCoveredError("a block has heads of another size")
    attention = fitted_attention(
        reader.attention(trace, wired),
        wired,
        z.reshape(*trace.residual.shape[:2], a.n_heads, a.d_head),
        n_heads=a.n_heads,
        n_kv_heads=a.n_kv_heads,
    )
    mlp = fitted_mlp(reader.mlps(trace), wired)
    post1, post2 = called_norm(wired.post1, eps), called_norm(wired.post2, eps)
    if post1.is_identity:
        attention = replace(attention, o=attention.o.scaled(wired.gain1))
    if mlp is not None and post2.is_identity:
        mlp = mlp.scaled(wired.gain2)
    return DenseBlock(
        called_norm(wired.norm1, eps),
        attention,
        called_norm(wired.norm2, eps),
        mlp,
        post1 if post1.is_identity else post1.scaled(wired.gain1),
        post2 if post2.is_identity else post2.scaled(wired.gain2),
        wired.parallel,
    )
