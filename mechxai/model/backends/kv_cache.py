"""Hugging Face's cache, made to keep a run's keys and values, or to put a frozen prefix before those of new rows."""

from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from mechxai.model.backends.prefix import JoiningRows, KeysValues


class _Keeping(DynamicLayer):
    """Keeps what a layer computes."""

    def __init__(self, kept: KeysValues) -> None:
        super().__init__()
        self._kept = kept

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        self._kept.add(key_states, value_states)
        return key_states, value_states


class _Expanding(DynamicLayer):
    """Puts the prefix before the keys and values of however many rows come; stays as it is."""

    def __init__(self, rows: JoiningRows, layer: int) -> None:
        super().__init__()
        self._rows, self._layer = rows, layer
        self.keys = rows.kept.keys[layer][:1, :, : rows.start]
        self.values = rows.kept.values[layer][:1, :, : rows.start]
        self.dtype, self.device, self.is_initialized = self.keys.dtype, self.keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        return self._rows.extended(self._layer, key_states, value_states, axis=2)


def keeping_cache(kept: KeysValues, n_layers: int) -> DynamicCache:
    """A cache for a first pass."""
    return _cache([_Keeping(kept) for _ in range(n_layers)])


def expanding_cache(rows: JoiningRows, n_layers: int) -> DynamicCache:
    """A cache for a pass over the last positions. Without a config, so that no layer drops keys."""
    return _cache([_Expanding(rows, layer) for layer in range(n_layers)])


def _cache(layers: list[DynamicLayer]) -> DynamicCache:
    cache = DynamicCache()
    cache.layers = layers  # pyright: ignore[reportAttributeAccessIssue]  # a list of layers is what it is
    return cache
