"""Rough memory of a sweep, computed from shapes."""

from collections.abc import Sequence

from mechxai.core.architecture import Architecture
from mechxai.engine.execution import HOOKED, SUFFIX
from mechxai.engine.sweep import Sweep
from mechxai.model.hooked_model import HookedModel


def row_bytes(model: HookedModel, sweep: Sweep, width: int, *, level: int = HOOKED) -> int:
    """Rough peak memory of one row of a wave, in bytes: the activations of a block, or the logits of the metric."""
    a: Architecture = model.architecture
    positions = sweep.metric.positions(sweep.batch)
    n_logits = width if positions is None else positions.shape[1]
    block = width * (8 * a.d_model + 3 * a.d_mlp) + 3 * a.n_heads * width * width
    if any({"head", "d_model"} <= set(site.row.axes) for site in sweep.sites):
        block += width * a.n_heads * a.d_model
    columns = sweep.metric.columns(sweep.batch) if level >= SUFFIX else None
    vocabulary = a.d_vocab if columns is None else len(columns)
    return max(block, 3 * n_logits * vocabulary) * model.dtype.itemsize


def record_bytes(model: HookedModel, sweep: Sweep, width: int) -> int:
    """Bytes of one recorded run of one prompt: residual streams, keys and values, and the sites of the sweep."""
    a = model.architecture
    sites = sum(_site_width(a, site.row.axes, width) for site in sweep.sites)
    per_layer = width * (a.d_model + 2 * a.n_kv_heads * a.d_head)
    return (a.n_layers * per_layer + sites) * model.dtype.itemsize


def _site_width(architecture: Architecture, axes: Sequence[str], width: int) -> int:
    """The number of elements of a whole site per prompt."""
    sizes = {"pos": width, "dest_pos": width, "src_pos": width, "one": 1}
    count = 1
    for axis in axes:
        count *= sizes[axis] if axis in sizes else architecture.size(axis)
    return count
