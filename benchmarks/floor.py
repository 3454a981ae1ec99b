"""The least arithmetic of a patching sweep, and the peak rate of matrix products on this machine.

The count covers the matrix products and attention of any exact method that runs a cell from its own layer on, at the
positions that its patch changes (at the answer position alone where nothing else is read), and the two unedited runs,
which share the positions before the first difference. Norms, activation functions and memory traffic are excluded.
"""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from benchmarks.shapes import Prompts, Shape
from benchmarks.sweeps import Sweep

_BLOCK_INPUT = ("resid_pre",)
_AFTER_ATTENTION = ("z", "attn_out")


def sweep_flops(shape: Shape, pairs: Prompts, sweep: Sweep) -> float:
    """Floating-point operations of the sweep over all prompts."""
    axes = {axis: number for number, axis in enumerate(sweep.over)}
    cells = sweep.cells(shape, pairs.width)
    known: dict[tuple[int, int | None], float] = {}
    for layer, pos in {(cell[0], cell[axes["pos"]] if "pos" in axes else None) for cell in cells}:
        known[layer, pos] = _cell(shape, pairs, sweep.site, layer=layer, pos=pos)
    total = sum(known[cell[0], cell[axes["pos"]] if "pos" in axes else None] for cell in cells)
    return len(pairs) * (total + _run(shape, pairs.width, 0) + _run(shape, pairs.width, pairs.first))


def forward_flops(shape: Shape, width: int) -> float:
    """Floating-point operations of an ordinary forward pass of one prompt, unembedding at all positions."""
    blocks = sum(_qkv(shape, 1) + _attended(shape, pos + 1) + _rest(shape, 1) for pos in range(width))
    return shape.n_layers * blocks + 2.0 * width * shape.d_model * shape.d_vocab


def _cell(shape: Shape, pairs: Prompts, site: str, *, layer: int, pos: int | None) -> float:
    """One cell on one prompt, from position ``pos``, or from the first difference if it patches all positions."""
    start = pairs.first if pos is None else pos
    single = pos is not None
    last, final = pairs.width - 1, shape.n_layers - 1
    same_token = site in _BLOCK_INPUT and layer == 0 and start != pairs.first
    unread = site not in _BLOCK_INPUT and layer == final and single and pos != last
    if start < pairs.first or same_token or unread:
        return 0.0  # the value of the unedited run
    total = 2.0 * shape.d_model * 2  # two columns of the unembedding
    if site in _BLOCK_INPUT:
        first = layer
    else:
        first = layer + 1
        changed = (1 if single else pairs.width - start) if layer < final else 1
        if site == "z":
            total += 2.0 * shape.d_head * shape.d_model * changed
        if site in _AFTER_ATTENTION:
            total += _mlp(shape, changed)
    for number in range(first, shape.n_layers):
        alone = single and number == first
        total += _block(shape, pairs.width, start, alone=alone, final=number == final)
    return total


def _run(shape: Shape, width: int, start: int) -> float:
    """An unedited run from a position on."""
    blocks = [_block(shape, width, start, alone=False, final=n == shape.n_layers - 1) for n in range(shape.n_layers)]
    return sum(blocks) + 2.0 * shape.d_model * 2


def _block(shape: Shape, width: int, start: int, *, alone: bool, final: bool) -> float:
    """A block whose input has changed from a position on, or ``alone`` at that position.

    A query that has not changed needs only the scores of changed keys.
    """
    changed = 1 if alone else width - start
    readers = [width - 1] if final else range(start, width)
    queries = sum(1 for reader in readers if not alone or reader == start)
    keys = sum(reader + 1 if not alone or reader == start else 1 for reader in readers)
    keys_values = 4.0 * shape.d_model * shape.n_kv_heads * shape.d_head * changed
    query = 2.0 * shape.d_model * shape.n_heads * shape.d_head * queries
    return keys_values + query + _attended(shape, keys) + _rest(shape, len(readers))


def _qkv(shape: Shape, positions: int) -> float:
    return 2.0 * shape.d_model * shape.d_head * (shape.n_heads + 2 * shape.n_kv_heads) * positions


def _attended(shape: Shape, keys: int) -> float:
    """Attention scores and weighted sums of this number of query-key pairs."""
    return 4.0 * shape.n_heads * shape.d_head * keys


def _rest(shape: Shape, positions: int) -> float:
    return 2.0 * shape.n_heads * shape.d_head * shape.d_model * positions + _mlp(shape, positions)


def _mlp(shape: Shape, positions: int) -> float:
    return 2.0 * shape.d_model * shape.d_mlp * (3 if shape.llama else 2) * positions


# The machine ----------------------------------------------------------------------------------------------------------


def matrix_peak(seconds: float = 0.3) -> dict[str, float]:
    """Peak GFLOP/s of float32 products with the MLP weights of GPT-2 small, by implementation."""
    rates: dict[str, float] = {}
    for rows in (128, 512, 2048):
        for n_in, n_out in ((768, 3072), (3072, 768)):
            x, weight, bias = torch.randn(rows, n_in), torch.randn(n_out, n_in), torch.randn(n_out)
            for name, product in _ways(x, weight, bias).items():
                rate = 2e-9 * rows * n_in * n_out / _best(product, seconds)
                rates[name] = max(rates.get(name, 0.0), rate)
    return {name: round(rate, 1) for name, rate in rates.items()}


def _ways(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> dict[str, Callable[[], torch.Tensor]]:
    turned = weight.T.contiguous()
    ways = {"F.linear": lambda: F.linear(x, weight, bias), "addmm": lambda: torch.addmm(bias, x, turned)}
    if torch.backends.mkldnn.is_available():
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, len(x))
        ways["prepacked oneDNN"] = lambda: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return ways


def _best(product: Callable[[], torch.Tensor], seconds: float) -> float:
    product()
    best, deadline = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        start = time.perf_counter()
        product()
        best = min(best, time.perf_counter() - start)
    return best
