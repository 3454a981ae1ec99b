"""The dense blocks of a `HookedModel`, and recorded runs through them."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from mechxai.core.shapes import Tokens
from mechxai.core.site import Site
from mechxai.model.backends.attach import Hooks
from mechxai.model.backends.hooks import gathered
from mechxai.model.backends.limits import check_tokens
from mechxai.model.backends.passes import Recording, record, residuals_before
from mechxai.model.dense.blocks import DenseModel
from mechxai.model.dense.check import equivalence_check
from mechxai.model.dense.run import run_dense
from mechxai.model.hooked_model import HookedModel


def dense_model_of(model: HookedModel, n_pos: int = 0) -> DenseModel | None:
    """The model's blocks as plain tensors, or None where they do not give the model's own activations.

    Args:
        model: the model.
        n_pos: length of the longest prompt; blocks may be tested up to a length only.

    Cost: the passes of `equivalence_check`, once.
    """
    check = equivalence_check(model.backend)
    return check.dense if check.covers(n_pos) else None


def record_dense(
    model: HookedModel,
    tokens: Tokens,
    *,
    hooks: Hooks,
    sites: Sequence[Site] = (),
    at: Int[Tensor, "prompt k"] | None = None,
) -> Recording:
    """`record` through dense blocks, for hooks before block 0 only. Cost: one forward pass."""
    dense = dense_model_of(model)
    if dense is None:
        return record(model, tokens, hooks=hooks, sites=sites, at=at)
    check_tokens(tokens, model.architecture, model.name)
    acts: dict[Site, Tensor] = {}
    before = [site for site in sites if site.row.entry == "embed"]
    tokens = tokens.to(model.device)
    with torch.no_grad():
        first = residuals_before(model, tokens, hooks, keep=dict.fromkeys(before, acts))
        run = run_dense(dense, first, acts.__setitem__, wanted=dict.fromkeys(sites))
        last = run.residuals[-1]
        final = dense.final(last if at is None else gathered(last, at))
    return Recording(tokens, run.residuals, run.kept, final, acts)
