"""A name for weights that changes when they do."""

import hashlib

import torch


def hash_parameters(module: torch.nn.Module) -> str:
    """A hash of every parameter's name, shape and bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in sorted(module.named_parameters()):
        digest.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode())
        digest.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
