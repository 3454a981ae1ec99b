"""Hooks that are attached inside a ``with`` block only."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

HookFunction = Callable[[Tensor], Tensor | None]
_LIBRARIES = ("transformer_lens.", "transformers.")


@contextmanager
def hooked(points: Sequence[tuple[Any, HookFunction]]) -> Iterator[None]:
    """Attaches functions to hook points and removes these functions, and no others, at the end.

    Args:
        points: (TransformerLens ``HookPoint``, function) pairs; functions at one point run in this order. A function
            returns the new activation, or None to leave it as it is.
    """
    added: list[tuple[Any, Any]] = []
    try:
        for point, function in points:
            point.add_hook(_named(function))
            added.append((point, point.fwd_hooks[-1]))
        yield
    finally:
        for point, handle in added:
            handle.hook.remove()
            point.fwd_hooks.remove(handle)


def _named(function: HookFunction) -> Callable[..., Tensor | None]:
    def hook_function(activation: Tensor, hook: object) -> Tensor | None:
        del hook
        return function(activation)

    return hook_function


def gathered(residual: Tensor, at: Tensor) -> Tensor:
    """The positions ``at``, ``[rows, k]``, of a residual stream, ``[rows, k, d_model]``."""
    return residual.gather(1, at.to(residual.device)[:, :, None].expand(-1, -1, residual.shape[-1]))


def foreign_hooks(modules: Iterable[Any]) -> bool:
    """Whether any of these modules has a forward hook that is not the libraries' own."""
    for module in modules:
        tables = (module._forward_pre_hooks, module._forward_hooks)
        functions = [function for table in tables for function in table.values()]
        if hasattr(module, "fwd_hooks"):  # a hook point, which wraps the function that was attached
            functions = [_attached_function(function) for function in functions]
        if any(not str(getattr(function, "__module__", "")).startswith(_LIBRARIES) for function in functions):
            return True
    return False


def _attached_function(wrapper: Any) -> Any:
    """The function that somebody attached to a hook point, from TransformerLens' wrapper around it."""
    cells = [cell.cell_contents for cell in getattr(wrapper, "__closure__", None) or ()]
    functions = [value for value in cells if callable(value) and not hasattr(value, "fwd_hooks")]
    return functions[0] if len(functions) == 1 else None
