"""A recorded pass through a model's own modules: what each norm, attention and MLP of a block reads and returns.

`topology` and the readers of attention and MLPs compose dense blocks from it, by what the modules compute rather than
by what they are called.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.shapes import Tokens
from mechxai.core.site import Site
from mechxai.model.backends.attach import attached
from mechxai.model.backends.base import Backend

Streams = Float[Tensor, "prompt pos d_model"]


class NotCoveredError(Exception):
    """Dense blocks do not cover a model; the message is a clause that gives the reason."""


@dataclass
class Call:
    """The last call of a module.

    Attributes:
        module: the module.
        read: its first tensor argument.
        output: its output, or the first entry of it.
        settings: its keyword arguments.
    """

    module: Any
    read: Tensor | None = None
    output: Tensor | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class BlockTrace:
    """The calls of a block's modules.

    Attributes:
        block: the block.
        residual: the residual stream before the block.
        after: the residual stream after it.
        calls: name of a module in the block -> its call; ``mlp.in`` and the like for modules of the MLP and attention.
        sites: ``q``, ``k``, ``v`` and ``z`` of the block, where the model has these sites.
    """

    block: Any
    residual: Tensor
    after: Tensor
    calls: Mapping[str, Call]
    sites: Mapping[str, Tensor]


def traced_blocks(backend: Backend, tokens: Tokens) -> list[BlockTrace]:
    """The calls in every block during a pass over some prompts. Cost: one forward pass."""
    n_layers = backend.architecture().n_layers
    sites: dict[Site, Tensor] = {}
    names = ["resid_pre", "resid_post"]
    names += [name for name in "qkvz" if Site(name, 0).hook in backend.hooks]
    wanted = [Site(name, layer) for name in names for layer in range(n_layers)]
    wanted = [site for site in wanted if site.hook in backend.hooks]
    hooks = {site.hook: [lambda activation, site=site: sites.update({site: activation.detach()})] for site in wanted}
    blocks = list(backend.inner.blocks)
    calls = [{name: Call(module) for name, module in _modules(block)} for block in blocks]
    with ExitStack() as stack, torch.no_grad(), attached(backend, (hooks,)):
        for of_block in calls:
            stack.enter_context(_recording(list(of_block.values())))
        backend.run(tokens, None)
    return [
        BlockTrace(
            block,
            sites[Site("resid_pre", layer)],
            sites[Site("resid_post", layer)],
            {name: call for name, call in calls[layer].items() if call.output is not None},
            {name: sites[Site(name, layer)] for name in "qkvz" if Site(name, layer) in sites},
        )
        for layer, block in enumerate(blocks)
    ]


def _modules(block: Any) -> Iterator[tuple[str, Any]]:
    """The modules of a block and of its attention and MLP, each once.

    Yields:
        Their names and the modules.
    """
    seen: set[int] = set()
    original = getattr(block, "original_component", None)
    for parent, prefix in ((block, ""), (original, "")):
        for name, module in _children(parent):
            if id(module) not in seen:
                seen.add(id(module))
                yield prefix + name, module
    for part in ("attn", "mlp"):
        for name, module in _children(getattr(block, part, None)):
            if id(module) not in seen:
                seen.add(id(module))
                yield f"{part}.{name}", module


def _children(module: Any) -> Sequence[tuple[str, Any]]:
    children = getattr(module, "_modules", None) or {}
    return [
        (name, child)
        for name, child in children.items()
        if child is not None and not name.startswith(("hook_", "_original")) and type(child).__name__ != "HookPoint"
    ]


@contextmanager
def _recording(calls: Sequence[Call]) -> Iterator[None]:
    handles = [call.module.register_forward_hook(_record(call), with_kwargs=True) for call in calls]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _record(call: Call) -> Any:
    def record(_module: Any, inputs: tuple[Any, ...], settings: dict[str, Any], output: Any) -> None:
        tensors = [value for value in (*inputs, *settings.values()) if isinstance(value, Tensor)]
        first = output[0] if isinstance(output, tuple) else output
        if tensors and isinstance(first, Tensor):
            call.read, call.output, call.settings = tensors[0].detach().clone(), first.detach().clone(), settings

    return record
