"""Whether a model is as it was loaded: its weights, the functions and hooks set on its modules, and their settings.

Weights are compared by sums of their bytes, as fast as memory is read, since edits through ``.data`` leave no trace in
PyTorch's version counters. Only a model that was changed is hashed anew.
"""

import hashlib
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mechxai.core.code_identity import is_installed
from mechxai.core.exclusive import exclusive
from mechxai.core.fingerprint import Fingerprints
from mechxai.core.site_table import SITES
from mechxai.core.torch_modes import plain_torch
from mechxai.model.backends.base import modules
from mechxai.model.backends.weight_hash import hash_parameters

_FLAGS = {row.flag for row in SITES.values() if row.flag}  # set for the time of a pass
_PASSING = {"training", "call_super_init", "dump_patches", *_FLAGS}
_SETTING = (bool, int, float, str)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_WORD = 8  # bytes that are summed as one number


@dataclass
class _Baseline:
    """A model as it was loaded, and the hashes of what it was changed to since.

    Attributes:
        sums: of the bytes of its weights.
        settings: module number and name -> function, hook or plain value.
        hashes: sums -> hash of the changed weights.
    """

    sums: tuple[int, ...]
    settings: Mapping[str, object]
    hashes: dict[tuple[int, ...], str] = field(default_factory=dict[tuple[int, ...], str])


_baselines: "weakref.WeakKeyDictionary[Any, _Baseline]" = weakref.WeakKeyDictionary()


def remember(holder: Any) -> None:
    """Takes a model's state as that of its ``weight_hash``; a model that is known already keeps its first state.

    Args:
        holder: a backend, or another object with the module in ``inner``.
    """
    if holder.inner not in _baselines:
        _baselines[holder.inner] = _Baseline(weight_sums(holder), settings(holder) | _hooks(holder))


def current_hash(holder: Any, loaded: str) -> str:
    """The hash of a model as it is now; ``loaded``, that of its weights when they were loaded, where nothing changed.

    Cost: one read of the weights.
    """
    baseline = _baselines.get(holder.inner)
    if baseline is None:
        return loaded
    with exclusive(holder), plain_torch():
        sums, now = weight_sums(holder), settings(holder) | _hooks(holder)
        changes = _changes(baseline.settings, now)
        if sums == baseline.sums and not changes:
            return loaded
        if sums not in baseline.hashes:
            baseline.hashes[sums] = loaded if sums == baseline.sums else hash_parameters(holder.inner)
    parts = [loaded, baseline.hashes[sums], Fingerprints()(changes)]
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


@contextmanager
def same_values(holder: Any) -> Iterator[None]:
    """A ``with`` block that changes the weights' layout in memory and no value."""
    baseline = _baselines.get(holder.inner)
    unchanged = baseline is not None and weight_sums(holder) == baseline.sums
    yield
    if baseline is not None and unchanged:
        baseline.sums = weight_sums(holder)


def model_state(holder: Any) -> dict[str, object]:
    """Everything that dense blocks, which share the model's tensors, depend on; equal states mean the same blocks.

    Holds the address and version of every parameter and buffer, and the `settings`.
    """
    return {"tensors": [_address(tensor) for tensor in _tensors(holder)], **settings(holder)}


def _tensors(holder: Any) -> list[Tensor]:
    tensors = (
        tensor for module in modules(holder) for tensor in (*module._parameters.values(), *module._buffers.values())
    )
    return [tensor for tensor in tensors if tensor is not None]


def _address(tensor: Tensor) -> object:
    try:
        return tensor.data_ptr(), tensor._version
    except (RuntimeError, NotImplementedError):  # quantised or absent storage
        return id(tensor)


def weight_sums(holder: Any) -> tuple[int, ...]:
    """Sums of the bytes of every parameter and buffer, which an edit of any of them changes. Cost: one read of them."""
    with torch.no_grad():
        parts = [part for tensor in _tensors(holder) if not tensor.is_meta for part in _sums(tensor)]
    on_cpu = [torch.stack(group).cpu() for group in _by_device(parts)]
    return tuple(int(value) for group in on_cpu for value in group)


def _sums(tensor: Tensor) -> list[Tensor]:
    """The sums of a tensor's rows and of its columns, as 8-byte words, and of the bytes left over."""
    try:
        stored = _in_memory_order(tensor.detach())
        content = stored.view(torch.uint8).reshape(-1)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError, TypeError):  # quantised in a way of its own
        return []
    row_bytes = stored.shape[-1] * stored.element_size() if stored.ndim else 0
    n_columns = max(1, row_bytes // _WORD)
    is_aligned = content.storage_offset() % _WORD == 0
    n_whole = len(content) // (n_columns * _WORD) * n_columns * _WORD if is_aligned else 0
    table = content[:n_whole].view(torch.int64).view(-1, n_columns)
    return [_weighted(table.sum(0)), _weighted(table.sum(1)), _weighted(content[n_whole:].long())]


def _weighted(numbers: Tensor) -> Tensor:
    """The sum of integers, each times an odd number of its own, so that their order counts."""
    return (numbers * (2 * torch.arange(len(numbers), device=numbers.device) + 1)).sum()


def _in_memory_order(tensor: Tensor) -> Tensor:
    """The tensor with its axes in the order of memory; a copy only where that leaves gaps."""
    order = sorted(range(tensor.ndim), key=lambda axis: -tensor.stride(axis))
    return tensor.permute(order).contiguous()


def _by_device(parts: Iterable[Tensor]) -> list[list[Tensor]]:
    groups: dict[torch.device, list[Tensor]] = {}
    for part in parts:
        groups.setdefault(part.device, []).append(part)
    return list(groups.values())


def settings(holder: Any) -> dict[str, object]:
    """Module number and name -> the plain values and functions set on modules and configurations.

    A replaced ``forward`` or ``act_fn`` is among them.
    """
    named: dict[str, object] = {}
    for number, module in enumerate(modules(holder)):
        named[f"{number}"] = type(module)
        if type(module).__name__ != "HookPoint":
            named |= {f"{number}.{name}": value for name, value in vars(module).items() if _is_setting(name, value)}
    original = getattr(holder.inner, "original_model", None) or holder.inner
    configs = {"cfg": getattr(holder.inner, "cfg", None), "config": getattr(original, "config", None)}
    for which, config in configs.items():
        values = {} if config is None else vars(config)
        named |= {f"{which}.{name}": repr(value) for name, value in values.items() if not _is_passing(name)}
    return named


def _hooks(holder: Any) -> dict[str, object]:
    """Module number -> the user's hooks on it; Hugging Face registers hooks of its own as it runs."""
    hooks = {
        number: [hook for name in _HOOKS for hook in vars(module).get(name, {}).values() if _is_users(hook)]
        for number, module in enumerate(modules(holder))
    }
    return {f"{number}.hooks": on_module for number, on_module in hooks.items() if on_module}


def _is_users(hook: Any) -> bool:
    function = getattr(hook, "func", getattr(hook, "__func__", hook))  # of a partial, of a method
    return not is_installed(str(getattr(function, "__module__", "")))


def _is_setting(name: str, value: object) -> bool:
    is_plain = isinstance(value, _SETTING) or (callable(value) and not isinstance(value, (Tensor, torch.nn.Module)))
    return is_plain and not _is_passing(name)


def _is_passing(name: str) -> bool:
    return name.startswith("_") or name in _PASSING


def _changes(before: Mapping[str, object], now: Mapping[str, object]) -> dict[str, object]:
    """Name -> present value of every setting that changed; None for one that is gone."""
    return {
        name: now.get(name)
        for name in {*before, *now}
        if name not in before or name not in now or before[name] != now[name]
    }
