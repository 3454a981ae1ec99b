"""Independent computations with Hugging Face's own model and its own hooks, one unpadded prompt at a time."""

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.families.edge_oracle import EdgeOracle
from tests.families.subject import Prompts, Subject


@torch.no_grad()
def logits(subject: Subject, tokens: Tensor) -> Tensor:
    """``[pos, vocab]`` of one prompt ``[1, pos]``."""
    return subject.hf(tokens).logits[0]


def scores(subject: Subject, tokens: Tensor, prompts: Prompts) -> np.ndarray:
    """The logit difference of every prompt at its last token."""
    last = [logits(subject, row)[-1] for row in prompts.rows(tokens)]
    return _differences(last, prompts)


def attentions(subject: Subject, tokens: Tensor) -> list[Tensor] | None:
    """The patterns ``[head, query, key]`` of every layer; None where some layers have none."""
    with torch.no_grad():
        patterns = subject.hf(tokens, output_attentions=True).attentions
    if not patterns or len(patterns) != subject.model.architecture.n_layers or any(p is None for p in patterns):
        return None
    return [pattern[0] for pattern in patterns]


def layers(subject: Subject) -> list[nn.Module] | None:
    return list(subject.hf.get_submodule(subject.names.layers)) if subject.names else None


def modules(subject: Subject, path: str) -> list[nn.Module] | None:
    """The module ``path`` of every layer; None where a layer lacks it."""
    blocks = layers(subject)
    if not path or blocks is None:
        return None
    try:
        return [block.get_submodule(path) for block in blocks]
    except AttributeError:
        return None


def inputs_of(subject: Subject, parts: list[nn.Module], tokens: Tensor) -> list[Tensor]:
    """The first input of each module in one forward pass."""
    kept: dict[int, Tensor] = {}
    handles = [
        part.register_forward_pre_hook(
            lambda _module, args, kwargs, i=i: kept.__setitem__(i, _first(args, kwargs).detach().clone()),
            with_kwargs=True,
        )
        for i, part in enumerate(parts)
    ]
    logits(subject, tokens)
    for handle in handles:
        handle.remove()
    return [kept[i] for i in range(len(parts))]


def outputs_of(subject: Subject, parts: list[nn.Module], tokens: Tensor) -> list[Tensor]:
    """The first output of each module in one forward pass."""
    kept: dict[int, Tensor] = {}

    def keep(i: int) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            kept[i] = (output[0] if isinstance(output, tuple) else output).detach().clone()

        return hook

    handles = [part.register_forward_hook(keep(i)) for i, part in enumerate(parts)]
    logits(subject, tokens)
    for handle in handles:
        handle.remove()
    return [kept[i] for i in range(len(parts))]


def patched_scores(
    subject: Subject, prompts: Prompts, module: nn.Module, *, pos: int | None = None, columns: slice | None = None
) -> np.ndarray:
    """The corrupted prompts' logit differences with part of a module's input taken from the clean prompt."""
    at = (slice(None), slice(None) if pos is None else pos, slice(None) if columns is None else columns)
    last = []
    for clean, corrupted in zip(prompts.rows(prompts.clean), prompts.rows(prompts.corrupted), strict=True):
        source = inputs_of(subject, [module], clean)[0]

        def put(values: Tensor, source: Tensor = source) -> Tensor:
            values = values.clone()
            values[at] = source[at]
            return values

        with input_hook(module, put):
            last.append(logits(subject, corrupted)[-1])
    return _differences(last, prompts)


@contextmanager
def input_hook(module: nn.Module, function: Callable[[Tensor], Tensor]) -> Any:
    """Changes the first input of a module.

    Yields:
        while the hook is attached.
    """

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (function(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": function(kwargs["hidden_states"])}

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def edge_oracles(subject: Subject, prompts: Prompts) -> list[EdgeOracle]:
    """The exact effects of edges, one oracle a prompt."""
    shape = subject.model.architecture
    rows = zip(prompts.rows(prompts.clean), prompts.rows(prompts.corrupted), strict=True)
    return [
        EdgeOracle(
            subject.hf,
            subject.names,
            shape.n_heads,
            shape.n_kv_heads,
            shape.d_head,
            clean,
            corrupted,
            prompts.answers[i],
            prompts.wrong[i],
        )
        for i, (clean, corrupted) in enumerate(rows)
    ]


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]


def _differences(last: list[Tensor], prompts: Prompts) -> np.ndarray:
    pairs = zip(last, prompts.answers, prompts.wrong, strict=True)
    return np.array([float(row[answer] - row[wrong]) for row, answer, wrong in pairs])
