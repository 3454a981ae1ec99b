"""Weights in the memory layout that matrix products read fastest, and activation functions as single kernels.

TransformerLens stores attention weights by head and copies them into matrices on every forward pass, as it does the
transposes of the unembedding and of gated MLPs: about half of its time on short prompts. With other strides of the same
numbers, these copies become views. Nothing is stored twice or computed differently.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mechxai.core.torch_modes import plain_torch

# parameter name -> the order of its axes in memory, last fastest
_ORDERS = {
    "W_Q": (1, 0, 2),  # a matrix d_model x (head d_head), which TransformerLens reads transposed
    "W_K": (1, 0, 2),
    "W_V": (1, 0, 2),
    "_W_K": (1, 0, 2),  # of grouped-query attention, where W_K is made from them
    "_W_V": (1, 0, 2),
    "W_O": (2, 0, 1),  # d_model x (head d_head)
    "W_U": (1, 0),  # d_vocab x d_model
    "W_gate": (1, 0),
    "W_in": (1, 0),  # d_mlp x d_model: rows that are 4 d_model apart share cache lines
}
_PAGE = 4096  # bytes; rows that are multiples of it apart compete for the same lines of a processor's cache
_GATED = {"W_out": (1, 0)}  # read transposed by gated MLPs only


@plain_torch()
def optimize_layout(hooked_transformer: Any) -> None:
    """Gives a HookedTransformer's weights the strides that its forward pass reads. Cost: one copy of each, once."""
    for module in hooked_transformer.modules():
        parameters = dict(module.named_parameters(recurse=False))
        orders = _ORDERS | (_GATED if "W_gate" in parameters else {})
        for name, parameter in parameters.items():
            if name in orders and parameter.ndim == len(orders[name]):
                _restride(parameter, orders[name])


@plain_torch()
def optimize_convolution_layout(modules: Iterable[Any]) -> None:
    """Transposes Hugging Face's ``Conv1D`` weights (GPT-2's) in memory where their rows share cache lines."""
    for module in modules:
        if type(module).__name__ == "Conv1D" and (module.weight.shape[1] * module.weight.element_size()) % _PAGE == 0:
            _restride(module.weight, (1, 0))


def _restride(parameter: torch.nn.Parameter, order: tuple[int, ...]) -> None:
    in_memory = parameter.data.permute(order)
    if not in_memory.is_contiguous():
        inverse = sorted(range(len(order)), key=lambda axis: order[axis])
        parameter.data = in_memory.contiguous().permute(inverse)


@contextmanager
def one_kernel(modules: Iterable[Any]) -> Iterator[None]:
    """Replaces GPT-2's GELU and TransformerLens' norms by torch's kernels, inside a ``with`` block.

    The functions are the same; written as eight and six operations, they take a quarter of a block's time. Norms whose
    hook points have hooks keep their forward.
    """
    changed: list[tuple[Any, str, Any]] = []
    try:
        for module in modules:
            activation = vars(module).get("act_fn")
            if getattr(activation, "__name__", "") == "gelu_new":  # HookedTransformer's MLPs
                changed.append((module, "act_fn", activation))
                module.act_fn = _gelu_tanh
            elif type(module).__name__ == "NewGELUActivation":  # Hugging Face's, a module
                changed.append((module, "forward", vars(module).get("forward")))
                module.forward = _gelu_tanh
            elif (kernel := _norm(module)) is not None:
                changed.append((module, "forward", vars(module).get("forward")))
                module.forward = kernel
        yield
    finally:
        for module, name, before in changed:
            if before is None:
                delattr(module, name)
            else:
                setattr(module, name, before)


_gelu_tanh: Callable[[Tensor], Tensor] = lambda x: F.gelu(x, approximate="tanh")  # noqa: E731


def _norm(module: Any) -> Callable[[Tensor], Tensor] | None:
    """One kernel for a TransformerLens norm that works in the model's dtype; None for other modules."""
    kind = type(module).__name__
    points = [getattr(module, name, None) for name in ("hook_scale", "hook_normalized")]
    if kind.removesuffix("Pre") not in ("LayerNorm", "RMSNorm") or any(point is None for point in points):
        return None
    if not hasattr(module, "cfg") or module.cfg.dtype not in (torch.float32, torch.float64):
        return None
    if any(getattr(module, name, None) is not None for name in ("original_component", "_original_component")):
        return None  # on the bridge, it calls another library's norm
    weight, bias, eps = getattr(module, "w", None), getattr(module, "b", None), float(module.eps)
    is_layer_norm = kind.startswith("Layer")
    last: list[Tensor] = []  # the last input and its norm: attention normalises the same input three times

    def kernel(x: Tensor) -> Tensor:
        if last and last[0] is x:
            return last[1]
        size = x.shape[-1:]
        out = F.layer_norm(x, size, weight, bias, eps) if is_layer_norm else F.rms_norm(x, size, weight, eps)
        last[:] = [x, out]
        return out

    return None if any(_hooked(point) for point in points) else kernel


def _hooked(point: Any) -> bool:
    return bool(point._forward_hooks or point._forward_pre_hooks)
