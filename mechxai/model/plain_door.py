"""A model's plain blocks, read once, and a check that they are the model."""

import logging
import weakref
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from mechxai.core.shapes import Tokens
from mechxai.core.site import Site
from mechxai.model.hooked_model import HookedModel, Hooks
from mechxai.model.hooking import gathered
from mechxai.model.limits import check_tokens
from mechxai.model.passes import Recording, record, residuals_before
from mechxai.model.plain import PlainModel
from mechxai.model.plain_run import run_plain
from mechxai.model.plain_weights import read_plain

_log = logging.getLogger("mechxai.model")
_known: "weakref.WeakKeyDictionary[HookedModel, PlainModel | None]" = weakref.WeakKeyDictionary()
_proven: "weakref.WeakKeyDictionary[HookedModel, bool]" = weakref.WeakKeyDictionary()
# what reading a model of another kind may stumble over
_MISFITS = (AttributeError, TypeError, ValueError, RuntimeError, LookupError, NotImplementedError)


def plain_of(model: HookedModel) -> PlainModel | None:
    """The model's blocks as plain tensors, or None where they are of another kind. Nothing is run."""
    if model not in _known:
        _known[model] = _read(model)
    return _known[model]


def is_proven(model: HookedModel) -> bool:
    """Whether the plain blocks give what the model gives, on a few tokens. Cost: two short passes, once."""
    if model not in _proven:
        _proven[model] = plain_of(model) is not None and _agrees(model)
    return _proven[model]


def record_plain(
    model: HookedModel,
    tokens: Tokens,
    *,
    hooks: Hooks,
    sites: Sequence[Site] = (),
    at: Int[Tensor, "prompt k"] | None = None,
) -> Recording:
    """What `record` gives, through plain blocks; hooks may stand before block 0 only. Cost: one forward pass."""
    plain = plain_of(model)
    if plain is None:
        return record(model, tokens, hooks=hooks, sites=sites, at=at)
    check_tokens(tokens, model.architecture, model.name)
    acts: dict[Site, Tensor] = {}
    before = [site for site in sites if site.row.entry == "embed"]
    tokens = tokens.to(model.device)
    with torch.no_grad():
        first = residuals_before(model, tokens, hooks, keep={site: acts for site in before})
        run = run_plain(plain, first, lambda site, value: acts.__setitem__(site, value), wanted=dict.fromkeys(sites))
        last = run.residuals[-1]
        final = plain.final(last if at is None else gathered(last, at))
    return Recording(tokens, run.residuals, run.kept, final, acts)


def _read(model: HookedModel) -> PlainModel | None:
    if not (model.backend.resumes and model.backend.plain_weights):
        return None
    model.lay_out()
    try:
        return read_plain(model.inner, model.architecture)
    except _MISFITS as error:
        _log.info("%s has no plain blocks (%s: %s)", model.name, type(error).__name__, error)
        return None


def _agrees(model: HookedModel) -> bool:
    width = min(8, model.architecture.n_ctx)
    tokens = (torch.arange(2 * width).reshape(2, width) * 37 + 11) % model.architecture.d_vocab
    empty: Mapping[str, list] = {}
    ours, theirs = (made(model, tokens, hooks=empty).final for made in (record_plain, record))
    scale = float(theirs.abs().max().clamp(min=1.0))
    exact = model.dtype in (torch.float32, torch.float64)
    return float((ours - theirs).abs().max()) <= (1e-3 if exact else 0.1) * scale
