"""Token batches, and the state of a hooked model that a call must leave unchanged."""

import warnings

import torch

import mechxai as mx
from mechxai.core.errors import ModelSupportError, SiteError
from mechxai.core.site_table import SITES
from tests.conftest import MODELS

ALL_MODELS = [*MODELS, ("bert", "auto", "raw"), ("bert", "auto", "folded")]
N_LAYERS = 3


def tokens_of(model, shape=(2, 9), seed=0):
    return torch.randint(10, model.architecture.d_vocab, shape, generator=torch.Generator().manual_seed(seed))


def has(model, name, *, editing=False):
    try:
        model.backend.check(mx.Site(name, 0 if SITES[name].has_layer else None), editing=editing)
    except (SiteError, ModelSupportError):
        return False
    return True


def modules(model):
    """Every module, those that the bridge keeps out of sight included."""
    hidden = getattr(model.inner, "original_model", None)
    return [*model.inner.modules(), *(hidden.modules() if hidden is not None else ())]


def n_hooks(model):
    """Hooks of any kind anywhere in the wrapped object."""
    found = 0
    for module in modules(model):
        found += len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
        found += len(getattr(module, "fwd_hooks", ())) + len(getattr(module, "bwd_hooks", ()))
    return found


def state(model):
    return (
        n_hooks(model),
        [module.training for module in modules(model)],
        [parameter.requires_grad for parameter in model.inner.parameters()],
        [parameter.grad is None for parameter in model.inner.parameters()],
        getattr(model.inner.cfg, "use_attn_result", None),
        torch.is_grad_enabled(),
        list(warnings.filters),
    )
