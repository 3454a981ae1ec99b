"""Weights laid out in memory as the matrix products want them; their values and shapes stay what they are.

TransformerLens keeps attention weights by head and copies them into matrices on every forward pass, as it does the
unembedding's and gated MLPs' transposes: about half of its time on short prompts. The same numbers with other strides
make those copies views. Nothing is held twice, nothing is computed differently.
"""

from typing import Any

import torch

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
    "W_in": (1, 0),  # d_mlp x d_model: rows 4 d_model apart fall on the same cache lines
}
_GATED = {"W_out": (1, 0)}  # read transposed by gated MLPs only


def lay_out(hooked_transformer: Any) -> None:
    """Gives a HookedTransformer's weights the strides its forward pass wants. Costs one copy of each, once."""
    for module in hooked_transformer.modules():
        own = dict(module.named_parameters(recurse=False))
        orders = _ORDERS | (_GATED if "W_gate" in own else {})
        for name, parameter in own.items():
            if name in orders and parameter.ndim == len(orders[name]):
                _restride(parameter, orders[name])


def _restride(parameter: torch.nn.Parameter, order: tuple[int, ...]) -> None:
    in_memory = parameter.data.permute(order)
    if not in_memory.is_contiguous():
        back = sorted(range(len(order)), key=lambda axis: order[axis])
        parameter.data = in_memory.contiguous().permute(back)
