"""What a sweep's work is counted in: positions through a layer, and the arithmetic and memory of one of them."""

import functools
import time

import torch

from mechxai.core.architecture import Architecture

# Packing weighs a wave's own cost against arithmetic at these rates; they are fixed, so that packing is.
_RATE = {"cpu": 150e9, "cuda": 30e12}
_LAYER_SECONDS = {"cpu": 1.2e-3, "cuda": 0.6e-3}  # of calling one layer, whatever it holds
_FUSED_SECONDS = {"cpu": 0.3e-3, "cuda": 0.3e-3}


def position_flops(architecture: Architecture) -> float:
    """Floating-point operations of one position in one layer, attention over other positions left out."""
    a = architecture
    attention = a.d_model * a.d_head * (2 * a.n_heads + 2 * a.n_kv_heads)
    mlp = 0 if a.attn_only else a.d_model * a.d_mlp * (3 if a.gated_mlp else 2)
    return 2.0 * (attention + mlp)


def attention_flops(architecture: Architecture, width: int) -> float:
    """Floating-point operations of one position that attends to half of ``width`` positions, in one layer."""
    return 2.0 * architecture.n_heads * architecture.d_head * width


def wave_positions(architecture: Architecture, device: str, *, fused: bool) -> float:
    """What a wave costs per layer beside its rows, in positions."""
    seconds = layer_seconds(device, fused=fused)
    weights = position_flops(architecture) / 2 * 4 / 20e9 if device == "cpu" else 0.0  # read once, at 20 GB/s
    return (seconds + weights) * _RATE.get(device, 150e9) / position_flops(architecture)


def layer_seconds(device: str, *, fused: bool) -> float:
    """What calling one layer costs, whatever it holds."""
    return (_FUSED_SECONDS if fused else _LAYER_SECONDS).get(device, 1e-3)


@functools.cache
def measured_rate(device: str, dtype: torch.dtype, *, d_model: int, threads: int) -> float:
    """Floating-point operations per second of this machine's matrix product, measured in about a tenth of a second.

    Used for expected times only; nothing that decides a value depends on it.
    """
    del threads  # the key of the cache
    rows, wide = (256, 4 * d_model) if device == "cpu" else (8192, 4 * d_model)
    left = torch.ones(rows, d_model, dtype=dtype, device=device)
    right = torch.ones(d_model, wide, dtype=dtype, device=device)
    flops, best, deadline = 2.0 * rows * d_model * wide, 0.0, time.perf_counter() + 0.1
    while time.perf_counter() < deadline or not best:
        _wait(device)
        started = time.perf_counter()
        torch.mm(left, right)
        _wait(device)
        best = max(best, flops / max(time.perf_counter() - started, 1e-9))
    return best


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
