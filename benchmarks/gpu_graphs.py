"""The possible gain from CUDA graphs and ``torch.compile``: ``python -m benchmarks.gpu_graphs``, on a GPU.

The arithmetic of the blocks at GPT-2-small shape, in waves of several sizes: eager, replayed as one CUDA graph, and
compiled. A replayed graph skips every launch and all of Python, so it bounds the gain that graphs can give a sweep,
whose waves would have to be captured once per shape. ``capture`` is the cost of the capture in replays.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from benchmarks.machine import conditions, write
from benchmarks.shapes import GPT2_SMALL, STD
from benchmarks.timing import digits

NAME = "gpu_graphs.json"
ROWS, WIDTH = (8, 32, 128, 512), 16
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main() -> None:
    """Measures everything and writes the results."""
    if not torch.cuda.is_available():
        sys.exit("no CUDA device")
    torch.set_grad_enabled(False)
    payload = {"conditions": conditions("python -m benchmarks.gpu_graphs") | {"machine": torch.cuda.get_device_name(0)}}
    payload["rows"] = [_measured(name, rows) for name in DTYPES for rows in ROWS]
    print(f"written to {write(NAME, payload, quick=False)}")


def _measured(dtype: str, rows: int) -> dict[str, object]:
    d = GPT2_SMALL.d_model
    sizes = ((3 * d, d), (d, d), (GPT2_SMALL.d_mlp, d), (d, GPT2_SMALL.d_mlp))
    options = {"device": "cuda", "dtype": DTYPES[dtype]}
    blocks = [[torch.randn(size, **options) * STD for size in sizes] for _ in range(GPT2_SMALL.n_layers)]
    x = torch.randn(rows, WIDTH, d, **options)
    eager = _seconds(lambda: _forward(x, blocks))
    started = time.perf_counter()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        _forward(x, blocks)
    torch.cuda.synchronize()
    capture = time.perf_counter() - started
    replayed = _seconds(graph.replay)
    measurement = {
        "dtype": dtype,
        "prompts": rows,
        "tokens": WIDTH,
        "eager_ms": 1000 * eager,
        "graph_ms": 1000 * replayed,
    }
    measurement |= {"graph_gain": eager / replayed, "capture_in_replays": capture / replayed}
    compiled = torch.compile(_forward, dynamic=False)
    started = time.perf_counter()
    compiled(x, blocks)
    torch.cuda.synchronize()
    measurement["compile_s"] = time.perf_counter() - started
    measurement["compile_gain"] = eager / _seconds(lambda: compiled(x, blocks))
    shown = {name: digits(value, 3) if isinstance(value, float) else value for name, value in measurement.items()}
    print(shown, flush=True)
    return shown


def _forward(x: torch.Tensor, blocks: list[list[torch.Tensor]]) -> torch.Tensor:
    rows, width, d = x.shape
    for qkv, out, mlp_in, mlp_out in blocks:
        parts = F.linear(F.layer_norm(x, (d,)), qkv).view(rows, width, 3, GPT2_SMALL.n_heads, -1).permute(2, 0, 3, 1, 4)
        z = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
        x = x + F.linear(z.transpose(1, 2).reshape(rows, width, d), out)
        x = x + F.linear(F.gelu(F.linear(F.layer_norm(x, (d,)), mlp_in), approximate="tanh"), mlp_out)
    return x


def _seconds(run: Callable[[], object]) -> float:
    """Seconds of one run: the median of nine averages over ten runs."""
    for _ in range(3):
        run()
    times = []
    for _ in range(9):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(10):
            run()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - started) / 10)
    return statistics.median(times)


if __name__ == "__main__":
    main()
