"""From the residual stream to the vocabulary: the one way by which lenses and direct logit attribution read.

Final norm (its statistics taken anew from what is read), unembedding, bias, logit soft-cap: what the model itself does
after its last block, so that the last layer read this way is the model's own output.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechxai.model.hooked_model import HookedModel


def normed(model: HookedModel, residual: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
    """The input of the unembedding, from residual streams. BERT's head has a layer of its own before its norm."""
    return model.backend.final_norm(residual[None])[0]


def unembedded(model: HookedModel, final: Tensor, columns: Int[Tensor, " column"] | None = None) -> Tensor:
    """Logits of a final, normalised residual stream, ``[..., d_vocab]`` or ``[..., column]``, soft-capped."""
    W_U, b_U = model.backend.unembedding()
    if columns is not None:
        W_U = W_U[:, columns]
        b_U = None if b_U is None else b_U[columns]
    logits = final.to(W_U.dtype) @ W_U
    logits = logits if b_U is None else logits + b_U
    cap = model.architecture.logit_softcap
    return cap * torch.tanh(logits / cap) if cap else logits


def read_out(model: HookedModel, residual: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_vocab"]:
    """The logits that the model would give if its last block left these residual streams. Cost: no forward pass."""
    return unembedded(model, normed(model, residual))
