"""The values of a user's metric function: how it is called, and what it may return."""

import inspect
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from mechxai.core.errors import ConfigError, ShapeError
from mechxai.core.shapes import Logits, PerPrompt

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def n_arguments(function: Callable[..., object]) -> int:
    """How many arguments a metric function takes: 2, the logits and the batch, or 1, the logits alone.

    Raises:
        ConfigError: it takes none, or needs more.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # builtin functions show no signature
        return 2
    if any(parameter.kind == inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
        return 2
    positional = [parameter for parameter in parameters if parameter.kind in _POSITIONAL]
    required = [parameter for parameter in positional if parameter.default is inspect.Parameter.empty]
    named = [p for p in parameters if p.kind == inspect.Parameter.KEYWORD_ONLY and p.default is inspect.Parameter.empty]
    if not positional or len(required) > 2 or named:
        name = getattr(function, "__name__", type(function).__name__)
        raise ConfigError(
            f"The custom metric {name} takes {inspect.signature(function)}", allowed="(logits, batch), or (logits)"
        )
    return 1 if len(positional) == 1 or (len(required) == 1 and positional[1].name != "batch") else 2


def per_prompt(value: object, logits: Logits, n_prompts: int) -> PerPrompt:
    """The value of a metric function as a tensor ``[prompt]`` of floating-point numbers, beside the logits.

    Args:
        value: a tensor, a numpy array, a pandas Series or a list, one number per prompt.
        logits: that the function was called with.
        n_prompts: length of the batch.

    Raises:
        ShapeError: not one real number per prompt, or no tensor where a gradient is wanted.
    """
    wanted = f"it must return one value per prompt, real numbers of shape ({n_prompts},)"
    values = value if isinstance(value, Tensor) else _tensor(value)
    if values is None or values.is_complex():
        raise ShapeError(f"The custom metric returned a {_kind(value)}: {wanted}")
    if values.shape != (n_prompts,):
        of = "" if isinstance(value, Tensor) else f"a {_kind(value)} of "
        raise ShapeError(f"The custom metric returned {of}shape {tuple(values.shape)}: {wanted}")
    if torch.is_grad_enabled() and logits.requires_grad and not values.requires_grad:
        raise ShapeError(
            f"The custom metric returned a {_kind(value)} without a gradient, and this method follows the gradient of "
            "the metric",
            fix="Compute it from the logits with torch operations, without detach, argmax or numpy",
        )
    return values.to(logits.device, values.dtype if values.is_floating_point() else logits.dtype)


def _tensor(value: object) -> Tensor | None:
    """Numbers in a list, an array or a Series as a tensor; None for anything else."""
    listed = cast("Any", value)
    if isinstance(value, (list, tuple)):
        listed = [item.item() if isinstance(item, Tensor) and item.numel() == 1 else item for item in listed]
    try:
        array = np.asarray(listed)
    except (TypeError, ValueError, RuntimeError):
        return None
    return torch.as_tensor(array.astype(np.float64)).float() if array.dtype.kind in "fiub" else None


def _kind(value: object) -> str:
    return f"tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
