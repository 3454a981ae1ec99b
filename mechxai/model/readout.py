"""From the residual stream to the vocabulary, for lenses and direct logit attribution.

The final norm (with the statistics of the residual stream at hand), unembedding, bias and logit soft-cap, exactly as
the model applies them after its last block: the last layer's readout is the model's own output.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechxai.core.errors import ModelSupportError
from mechxai.model.dense.norms import norm_of
from mechxai.model.hooked_model import HookedModel
from mechxai.model.output_map import output_map


def normed(model: HookedModel, residual: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
    """The input of the unembedding, from residual streams. On BERT this includes the layer before the final norm."""
    return model.backend.final_norm(residual[None])[0]


def unembedded(model: HookedModel, final: Tensor, columns: Int[Tensor, " column"] | None = None) -> Tensor:
    """Logits of a final, normalised residual stream, ``[..., d_vocab]`` or ``[..., column]``, as the model does."""
    W_U, b_U = model.backend.unembedding()
    if columns is not None:
        W_U = W_U[:, columns]
        b_U = None if b_U is None else b_U[columns]
    logits = final.to(W_U.dtype) @ W_U
    return output_map(model.backend)(logits if b_U is None else logits + b_U)


def read_out(
    model: HookedModel, residual: Float[Tensor, "row d_model"], *, into: Tensor | None = None
) -> Float[Tensor, "row d_vocab"]:
    """The model's logits, were these residual streams its last block's output. Cost: no forward pass.

    Args:
        model: the model.
        residual: residual streams.
        into: a tensor to write the logits into, of the unembedding's dtype; no gradient passes through.
    """
    final = normed(model, residual)
    if into is None:
        return unembedded(model, final)
    logits, cap = products(model, final, into), output_map(model.backend).softcap
    return cap * torch.tanh(logits / cap) if cap else logits


def products(model: HookedModel, final: Float[Tensor, "row d_model"], into: Tensor) -> Float[Tensor, "row d_vocab"]:
    """Scaled logits before a soft-cap, written into ``into``; no gradient passes through."""
    (W_U, b_U), scale = model.backend.unembedding(), output_map(model.backend).scale
    final = final.to(W_U.dtype)
    if b_U is None:
        return torch.mm(final if scale == 1.0 else final * scale, W_U, out=into)
    return torch.addmm(b_U, final, W_U, alpha=scale, beta=scale, out=into)


def pulled_back(
    model: HookedModel, residual: Float[Tensor, "row d_model"], direction: Float[Tensor, "row d_model"]
) -> tuple[Float[Tensor, "row d_model"], Float[Tensor, " row"]]:
    """Carries a direction before the unembedding back through the final norm, with the norm's scale frozen.

    Args:
        model: the model.
        residual: the final residual streams, whose scale is used.
        direction: for each residual stream, a direction in the space after the norm.

    Returns:
        Directions and constants such that ``norm(residual) . direction = residual . directions + constants``; the
        parts that a residual stream is the sum of can be projected onto the directions one by one.

    Raises:
        ModelSupportError: the final norm is neither LayerNorm nor RMSNorm.
    """
    norm = norm_of(getattr(model.inner, "ln_final", None), model.architecture, model.inner.cfg)
    if norm is None or not model.architecture.causal:
        reason = "it is neither LayerNorm nor RMSNorm" if norm is None else "a layer precedes it"
        raise ModelSupportError(
            f"The scale of {model.name}'s final norm cannot be frozen: {reason}",
            fix="Use a lens, which does not freeze it",
        )
    return norm.pulled_back(residual, direction)


def as_float(logits: Tensor) -> Tensor:
    """Logits for scoring: half precision as float32, others as they are."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
