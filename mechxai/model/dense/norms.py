"""Norms as plain tensors, recognised by what they compute."""

from typing import Any

import torch
from torch import Tensor

from mechxai.core.architecture import Architecture
from mechxai.model.dense.parts import NO_NORM, HeadNorm, Norm
from mechxai.model.dense.trace import Call, NotCoveredError

_CLOSE = 1e-4
_CLOSE_HALF = 2e-2
_EPSILONS = ("eps", "variance_epsilon", "epsilon", "norm_eps")


def norm_of(module: Any, a: Architecture, cfg: Any) -> Norm | None:
    """The norm that gives the module's outputs for random inputs; None where none does."""
    if module is None or a.norm == "none":
        return NO_NORM
    parameter = next(iter(module.parameters()), None)
    parameter = parameter if parameter is not None else next(iter(module.buffers()), torch.zeros(1))
    x = torch.randn(1, 4, a.d_model, generator=torch.Generator().manual_seed(0)).to(_like(module, parameter))
    return recognised_norm(module, x, module(x), eps=float(getattr(cfg, "eps", 1e-5)))


def called_norm(call: Call | None, eps: float) -> Norm:
    """The norm of a recorded call.

    Raises:
        NotCoveredError: neither LayerNorm nor RMSNorm.
    """
    if call is None:
        return NO_NORM
    norm = None
    if call.read is not None and call.output is not None:
        norm = recognised_norm(call.module, call.read, call.output, eps=eps)
    if norm is None:
        raise NotCoveredError(f"{type(call.module).__name__} is neither LayerNorm nor RMSNorm")
    return norm


def head_norm(call: Call, n_heads: int, eps: float) -> HeadNorm:
    """The norm of queries or keys, from a recorded call."""
    if call.read is None or call.output is None:
        raise NotCoveredError("the norm of queries or keys is not called")
    width = call.read.shape[-1]
    norm = recognised_norm(call.module, call.read, call.output, eps=eps)
    d_head = call.read.numel() // (call.read.shape[0] * call.read.shape[1] * n_heads)
    if norm is not None:
        return HeadNorm(norm, whole=width != d_head and call.read.ndim == 3)
    if call.read.ndim == 4 and call.read.shape[1] == n_heads:  # [batch, head, pos, d_head]
        module = _plain(call.module)
        return HeadNorm(lambda x: module(x.transpose(1, 2)).transpose(1, 2), whole=False)
    raise NotCoveredError(f"{type(call.module).__name__} is no norm of queries or keys that dense blocks know")


def recognised_norm(module: Any, x: Tensor, expected: Tensor, *, eps: float) -> Norm | None:
    """The norm with a module's weights that maps ``x`` to ``expected``; None where none does."""
    original = _plain(module)
    weight = _tensor(original, "weight", "w")
    bias = _tensor(original, "bias", "b")
    own = next((float(value) for name in _EPSILONS if (value := getattr(original, name, None))), eps)
    candidates = [Norm("LN", own, weight, bias), Norm("LN", own), Norm("RMS", own, weight, bias), Norm("RMS", own)]
    if weight is not None:
        candidates += [Norm("RMS", own, 1 + weight), Norm("LN", own, 1 + weight, bias)]  # Gemma's, Nemotron's
    bound = _CLOSE if x.dtype in (torch.float32, torch.float64) else _CLOSE_HALF
    for candidate in candidates:
        if candidate.weight is not None and candidate.weight.shape[-1] != x.shape[-1]:
            continue
        if candidate.weight is not None and candidate.weight.ndim > 1 and x.shape[-2] != candidate.weight.shape[0]:
            continue
        if torch.allclose(candidate(x), expected, rtol=bound, atol=bound):
            return candidate
    return None


def _plain(module: Any) -> Any:
    """The Hugging Face module under a bridge component; a module of another kind itself."""
    original = getattr(module, "original_component", None)
    return module if original is None else original


def _tensor(module: Any, *names: str) -> Tensor | None:
    values = [getattr(module, name, None) for name in names]
    return next((value.detach() for value in values if isinstance(value, Tensor)), None)


def _like(module: Any, parameter: Tensor) -> Tensor:
    """A tensor of the module's dtype and device: of its parameters, or of its configuration where it has none."""
    cfg = getattr(module, "cfg", None) or getattr(module, "config", None)
    if parameter.is_floating_point() and parameter.numel() > 1:
        return parameter
    dtype = getattr(cfg, "dtype", torch.float32)
    return torch.zeros(1, dtype=dtype, device=getattr(cfg, "device", None) or "cpu")
