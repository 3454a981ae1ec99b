"""The numbers of a model's configuration, with which measured factors are made exact."""

from collections.abc import Iterator, Mapping
from typing import Any

from mechxai.model.backends.base import Backend


def config_numbers(backend: Backend) -> list[float]:
    """Every real number in the configuration of the Hugging Face model, or of TransformerLens where there is none."""
    config = getattr(getattr(backend.inner, "original_model", None), "config", None)
    return list(dict.fromkeys(_numbers(vars(backend.inner.cfg) if config is None else config.to_dict())))


def _numbers(tree: Any) -> Iterator[float]:
    values = tree.values() if isinstance(tree, Mapping) else tree
    for value in values:
        if isinstance(value, (Mapping, list, tuple)):
            yield from _numbers(value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield float(value)
