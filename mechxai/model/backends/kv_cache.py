"""Hugging Face caches that store a run's keys and values, or put a frozen prefix before those of new rows."""

from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from mechxai.model.backends.prefix import JoiningRows, KeysValues


class _StoringLayer(DynamicLayer):
    """Stores the keys and values of a layer."""

    def __init__(self, kept: KeysValues) -> None:
        super().__init__()
        self._kept = kept

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        self._kept.add(key_states, value_states)
        return key_states, value_states


class _ExpandingLayer(DynamicLayer):
    """Puts the prefix before the keys and values of any number of rows; the prefix itself does not change."""

    def __init__(self, rows: JoiningRows, layer: int) -> None:
        super().__init__()
        self._rows, self._layer = rows, layer
        self.keys = rows.kept.keys[layer][:1, :, : rows.start]
        self.values = rows.kept.values[layer][:1, :, : rows.start]
        self.dtype, self.device, self.is_initialized = self.keys.dtype, self.keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        return self._rows.extended(self._layer, key_states, value_states, axis=2)


def keeping_cache(kept: KeysValues, n_layers: int) -> DynamicCache:
    """A cache for `Backend.record`."""
    return _cache([_StoringLayer(kept) for _ in range(n_layers)])


def expanding_cache(rows: JoiningRows, n_layers: int) -> DynamicCache:
    """A cache for `Backend.resume`. It has no config, so that no layer drops keys."""
    return _cache([_ExpandingLayer(rows, layer) for layer in range(n_layers)])


def _cache(layers: list[DynamicLayer]) -> DynamicCache:
    cache = DynamicCache()
    cache.layers = layers  # pyright: ignore[reportAttributeAccessIssue]  # typed as read-only
    return cache
