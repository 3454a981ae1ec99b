"""The unit of work, one position through one layer: its arithmetic, its memory traffic and its time."""

import functools
import time

import torch

from mechxai.core.architecture import Architecture

# Packing compares the fixed cost of a wave with arithmetic at these constant rates, so that it is deterministic.
_RATE = {"cpu": 150e9, "cuda": 30e12}
_LAYER_SECONDS = {"cpu": 1.2e-3, "cuda": 0.6e-3}  # overhead of calling one layer
_FUSED_SECONDS = {"cpu": 0.3e-3, "cuda": 0.3e-3}


def position_flops(architecture: Architecture) -> float:
    """Floating-point operations of one position in one layer, without attention over other positions."""
    a = architecture
    attention = a.d_model * a.d_head * (2 * a.n_heads + 2 * a.n_kv_heads)
    mlp = 0 if a.attn_only else a.d_model * a.d_mlp * (3 if a.gated_mlp else 2)
    return 2.0 * (attention + mlp)


def attention_flops(architecture: Architecture, width: int) -> float:
    """Floating-point operations of one position that attends to half of ``width`` positions, in one layer."""
    return 2.0 * architecture.n_heads * architecture.d_head * width


def wave_positions(architecture: Architecture, device: str, *, fused: bool) -> float:
    """The fixed cost of a wave per layer, in positions."""
    seconds = layer_seconds(device, fused=fused)
    weights = position_flops(architecture) / 2 * 4 / 20e9 if device == "cpu" else 0.0  # read once, at 20 GB/s
    return (seconds + weights) * _RATE.get(device, 150e9) / position_flops(architecture)


def layer_seconds(device: str, *, fused: bool) -> float:
    """The overhead of calling one layer, in seconds."""
    return (_FUSED_SECONDS if fused else _LAYER_SECONDS).get(device, 1e-3)


@functools.cache
def measured_rate(device: str, dtype: torch.dtype, *, d_model: int, threads: int) -> float:
    """Floating-point operations per second of this machine's matrix product, measured in about a tenth of a second.

    Only expected times use it; no value depends on it.
    """
    del threads  # part of the cache's key
    rows, columns = (256, 4 * d_model) if device == "cpu" else (8192, 4 * d_model)
    left = torch.ones(rows, d_model, dtype=dtype, device=device)
    right = torch.ones(d_model, columns, dtype=dtype, device=device)
    flops, best, deadline = 2.0 * rows * d_model * columns, 0.0, time.perf_counter() + 0.1
    while time.perf_counter() < deadline or not best:
        _synchronize(device)
        started = time.perf_counter()
        torch.mm(left, right)
        _synchronize(device)
        best = max(best, flops / max(time.perf_counter() - started, 1e-9))
    return best


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
