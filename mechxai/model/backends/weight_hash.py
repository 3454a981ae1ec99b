"""Hashes of weights."""

import hashlib
from collections.abc import Mapping

import torch


def hash_parameters(module: torch.nn.Module) -> str:
    """A hash of every parameter's name, shape and bytes."""
    return hash_tensors(dict(module.named_parameters()))


def hash_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """A hash of every tensor's name, shape and bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
