"""Functions attached to a backend's hook points, and passes that stop before block 0."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.core.exclusive import exclusive
from mechxai.core.shapes import PromptInts, Tokens
from mechxai.core.site import Site
from mechxai.model.backends.base import Backend, flags, hook_point
from mechxai.model.backends.evaluating import evaluating
from mechxai.model.backends.hooks import HookFunction, hooked

Hooks = Mapping[str, Sequence[HookFunction]]


@contextmanager
def attached(backend: Backend, hooks: Sequence[Hooks], sites: Sequence[Site] = ()) -> Iterator[None]:
    """Attaches functions to hook points, and puts the model into evaluation mode; other threads wait.

    Args:
        backend: the model.
        hooks: tables, TransformerLens hook name -> functions, attached one table after the other.
        sites: sites behind the functions, so that TransformerLens computes them.
    """
    with exclusive(backend):
        points = [
            (hook_point(backend, name), _effective(backend, name, function))
            for table in hooks
            for name, functions in table.items()
            for function in functions
        ]
        with evaluating(backend), flags(backend, sites), hooked(points):
            yield


class _Embedded(Exception):  # noqa: N818 - not an error: it ends a pass at block 0
    """The embedding is computed."""


def embedded(backend: Backend, tokens: Tokens, hooks: Sequence[Hooks] = ()) -> Float[Tensor, "row pos d_model"]:
    """The residual stream before block 0, with functions attached before it. Cost: the embedding of the rows."""
    residuals: list[Tensor] = []

    def stop(residual: Tensor) -> None:
        residuals.append(residual.detach())
        raise _Embedded

    last: Hooks = {Site("resid_pre", 0).hook: [stop]}
    with attached(backend, (*hooks, last)), torch.no_grad(), suppress(_Embedded):
        backend.run(tokens, None)
    return residuals[0]


def row_mask(tokens: Tokens, lengths: PromptInts | None) -> Bool[Tensor, "batch pos"] | None:
    """Which tokens are real; None where all are."""
    if lengths is None:
        return None
    lengths = lengths.to(tokens.device)
    return torch.arange(tokens.shape[1], device=tokens.device)[None] < lengths[:, None]


def _effective(backend: Backend, hook: str, function: HookFunction) -> HookFunction:
    """The function, editing in place at hook points where the backend ignores part of a returned activation."""
    if torch.is_grad_enabled() or hook not in _hooks_in_place(backend):
        return function

    def in_place(activation: Tensor) -> None:
        new = function(activation)
        if new is not None:
            activation.copy_(new)

    return in_place


def _hooks_in_place(backend: Backend) -> set[str]:
    layers = range(backend.architecture().n_layers) if backend.in_place else ()
    return {Site(name, layer).hook for name in backend.in_place for layer in layers}
