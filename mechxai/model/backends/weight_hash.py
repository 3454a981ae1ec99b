"""Hashes of weights."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

_PLAIN_PACKAGES = ("torch", "transformers", "transformer_lens")  # their settings stand in the configuration
_SIMPLE = (bool, int, float, str, type(None))


def hash_parameters(module: torch.nn.Module) -> str:
    """A hash of every parameter's name, shape and bytes, and of what adapters and quantised layers add to them.

    Layers of other packages (adapters, quantised layers) also count with their type, their buffers and their settings,
    such as an adapter's scaling and whether it is on.
    """
    tensors = dict(module.named_parameters())
    settings: list[str] = []
    whole: torch.nn.Module = getattr(module, "original_model", module)  # a bridge does not list its model's layers
    for name, layer in whole.named_modules():
        if type(layer).__module__.split(".")[0] not in _PLAIN_PACKAGES:
            tensors |= {f"{name}.{key}": buffer for key, buffer in layer.named_buffers(recurse=False)}
            values = {key: value for key, value in vars(layer).items() if not key.startswith("__")}
            settings.append(repr((name, type(layer).__qualname__, list(_simple(values)))))
    return hash_tensors(tensors, settings)


def hash_tensors(tensors: Mapping[str, torch.Tensor], settings: list[str] | None = None) -> str:
    """A hash of every tensor's name, shape and bytes, and of further texts."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        for part in _parts(tensor):
            digest.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    for text in settings or ():
        digest.update(text.encode())
    return digest.hexdigest()


def _parts(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The ordinary tensors in which a tensor is stored: quantised ones consist of several.

    Yields:
        The tensor itself, or its parts, and tensors of its quantisation.
    """
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is not None:
        for name in flatten()[0]:
            yield from _parts(getattr(tensor, name))
        return
    yield tensor.detach().as_subclass(torch.Tensor)
    state = getattr(tensor, "quant_state", None)  # bitsandbytes keeps the scales of 4-bit weights beside them
    for value in vars(state).values() if state is not None else ():
        if isinstance(value, torch.Tensor):
            yield value


def _simple(values: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Settings that are numbers, texts, or lists and dictionaries of them.

    Yields:
        Their names and values, by name.
    """
    for key, value in sorted(values.items()):
        if isinstance(value, _SIMPLE) and key != "training":
            yield key, value
        elif isinstance(value, (list, tuple)) and all(isinstance(entry, _SIMPLE) for entry in value):
            yield key, list(value)
        elif isinstance(value, dict) and value and all(isinstance(entry, _SIMPLE) for entry in value.values()):
            yield key, sorted((str(entry), setting) for entry, setting in value.items())
