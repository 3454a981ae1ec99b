"""From the product with the unembedding to the model's logits: a scale and a soft-cap, measured on the model."""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mechxai.core.errors import ModelSupportError
from mechxai.model.backends.attach import attached
from mechxai.model.backends.base import UNEMBED_HOOK, Backend
from mechxai.model.backends.config_numbers import config_numbers

_N_TOKENS = 4
_CLOSE = 1e-4
_CLOSE_HALF = 3e-2


@dataclass(frozen=True)
class OutputMap:
    """``logits = cap * tanh(scale * (final @ W_U + b_U) / cap)``; without a cap, ``scale * (final @ W_U + b_U)``.

    Attributes:
        scale: Granite divides logits by a number, Cohere multiplies them; 1 for most models.
        softcap: Gemma 2's cap on logits; 0 without.
    """

    scale: float = 1.0
    softcap: float = 0.0

    def __call__(self, products: Tensor) -> Tensor:
        """Logits from products with the unembedding, bias included."""
        scaled = products if self.scale == 1.0 else products * self.scale
        return self.softcap * torch.tanh(scaled / self.softcap) if self.softcap else scaled


_maps: "weakref.WeakKeyDictionary[Backend, OutputMap]" = weakref.WeakKeyDictionary()


def output_map(backend: Backend) -> OutputMap:
    """The map that gives the model's own logits. Cost: one short pass, once.

    Raises:
        ModelSupportError: neither a scale nor the configured soft-cap gives them.
    """
    if backend not in _maps:
        _maps[backend] = _measured(backend)
    return _maps[backend]


def _measured(backend: Backend) -> OutputMap:
    finals: list[Tensor] = []
    a = backend.architecture()
    device = next(iter(backend.inner.parameters())).device
    n_tokens = min(_N_TOKENS, a.n_ctx)
    tokens = ((torch.arange(n_tokens)[None] * 37 + 11) % a.d_vocab).to(device)
    hooks = {UNEMBED_HOOK: [lambda final: finals.append(final.detach().clone())]}
    with torch.no_grad(), attached(backend, (hooks,)):
        logits = backend.run(tokens, None)[0].double()
        W_U, b_U = backend.unembedding()
        products = (finals[0][0].to(W_U.dtype) @ W_U + (0.0 if b_U is None else b_U)).double()
    bound = _CLOSE if W_U.dtype in (torch.float32, torch.float64) else _CLOSE_HALF
    for candidate in _candidates(backend, products, logits):
        if bool((candidate(products) - logits).abs().max() <= bound * logits.abs().max()):
            return candidate
    raise ModelSupportError(
        f"The logits of {a.family} are not its unembedding times a scale, with or without a soft-cap, so that no "
        "residual stream can be read out",
        fix="Use methods that read the model's own logits, such as activation patching of single places",
    )


def _candidates(backend: Backend, products: Tensor, logits: Tensor) -> Iterator[OutputMap]:
    numbers = config_numbers(backend)
    cap = backend.architecture().logit_softcap or _final_cap(backend)
    yield OutputMap(1.0, cap)
    yield OutputMap()
    yield OutputMap(_scale(products, logits, numbers))
    if cap:
        yield OutputMap(_scale(products, cap * torch.atanh((logits / cap).clamp(-0.999, 0.999)), numbers), cap)


def _final_cap(backend: Backend) -> float:
    config: Any = getattr(getattr(backend.inner, "original_model", None), "config", None)
    return float(getattr(config, "final_logit_softcapping", None) or 0.0)


def _scale(products: Tensor, logits: Tensor, numbers: list[float]) -> float:
    """The factor between two tensors; a number of the configuration, or its inverse, where that is close."""
    factor = float((products * logits).sum() / products.square().sum().clamp(min=1e-30))
    known = [1.0, *numbers, *(1 / number for number in numbers if number)]
    nearest = min(known, key=lambda number: abs(number - factor))
    return nearest if abs(nearest - factor) <= 1e-3 * abs(factor) else factor
