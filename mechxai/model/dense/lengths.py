"""Lengths at which a configuration changes what a model computes: attention windows, chunks, thresholds of rotation."""

from collections.abc import Iterator, Mapping
from typing import Any

from mechxai.model.backends.base import Backend

_NAMES = (
    "sliding_window",
    "window_size",
    "attention_window",
    "local_attention",
    "attention_chunk_size",
    "original_max_position_embeddings",
)
_SHORTEST, _BEYOND = 8, 4  # tokens of a test, and behind a threshold
_PRODUCTS = 2e11  # multiplications and additions that a test of a long prompt may take, some seconds of a core


def thresholds(backend: Backend) -> list[int]:
    """The lengths that the model's configurations name, ascending."""
    inner = backend.inner
    config = getattr(getattr(inner, "original_model", None), "config", None)
    trees = [vars(inner.cfg)] if config is None else [config.to_dict()]
    return sorted({length for tree in trees for length in _named(tree)})


def test_lengths(backend: Backend) -> list[tuple[int, int | None]]:
    """Lengths of test prompts, and the length up to which a test of each holds (None: any), the most general first.

    The first prompt is longer than every threshold that a test can afford. The others end at a threshold: tables of
    rotation that depend on a prompt's length (longrope) hold on one side of it only.
    """
    n_ctx = backend.architecture().n_ctx
    n_parameters = sum(parameter.numel() for parameter in backend.inner.parameters())
    most = max(_SHORTEST, int(_PRODUCTS / max(1, n_parameters)))
    lengths = [length for length in thresholds(backend) if length < n_ctx]
    affordable = [length for length in lengths if length + _BEYOND <= most]
    left_out = next((length for length in lengths if length + _BEYOND > most), None)
    first = min(n_ctx, max([_SHORTEST, *(length + _BEYOND for length in affordable)]))
    return [(first, left_out), *((length, length) for length in reversed(affordable))]


def _named(tree: Mapping[Any, Any]) -> Iterator[int]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _named(value)
        elif name in _NAMES and isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
            yield int(value)
