"""TransformerLens' own model behind the `Backend` interface."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from mechxai.core.architecture import Architecture
from mechxai.core.cached import cached_property
from mechxai.core.shapes import Mask, RowLogits, Tokens
from mechxai.core.site import Site
from mechxai.model.backends.base import are_plain, check_exists, read_architecture
from mechxai.model.backends.edit_faults import EditCheck
from mechxai.model.backends.prefix import JoiningRows, KeysValues
from mechxai.model.backends.weight_state import same_values
from mechxai.model.dense.weight_layout import optimize_layout


@dataclass(frozen=True)
class HookedTransformerBackend:
    """TransformerLens' own model (up to 3.9, where it was last shipped)."""

    inner: Any
    borrowed: bool = False  # a user's object, whose weights keep their memory layout
    name: ClassVar[str] = "hooked_transformer"
    masks_rows: ClassVar[bool] = False
    in_place: ClassVar[frozenset[str]] = frozenset()

    @property
    def hooks(self) -> Mapping[str, Any]:
        """TransformerLens' own table of hook points."""
        return self.inner.hook_dict

    def architecture(self) -> Architecture:
        """Sizes and block structure, from ``inner.cfg``."""
        return self._architecture

    @cached_property
    def _architecture(self) -> Architecture:
        return read_architecture(self.inner.cfg, causal=self.inner.cfg.attention_dir == "causal")

    def check(self, site: Site, *, editing: bool = False) -> None:
        """Refuses a site that the model does not have, or that is to be edited and has no effect."""
        check_exists(self, site)
        if editing:
            self._check_edit(self, site)

    @cached_property
    def _check_edit(self) -> EditCheck:
        return EditCheck()

    def run(self, tokens: Tokens, mask: Mask | None) -> RowLogits:
        """Logits. No mask is passed: rows are padded on the right, where causal attention never looks."""
        del mask
        return self.inner(tokens, return_type="logits", prepend_bos=False, padding_side="right")

    def resumes(self) -> bool:
        """Whether attention is causal and the model on one device."""
        return self.inner.cfg.attention_dir == "causal" and self.inner.cfg.n_devices == 1

    def plain_weights(self) -> bool:
        """Whether the weights are neither quantised nor spread over devices."""
        return are_plain(self.inner) and not self.inner.cfg.load_in_4bit

    def optimize_layout(self) -> None:
        """Restrides the weights, so that TransformerLens' reshapes are views instead of copies."""
        if not self.borrowed:
            self._laid_out  # noqa: B018 - once

    @cached_property
    def _laid_out(self) -> bool:
        with same_values(self):
            optimize_layout(self.inner)
        return True

    def record(self, tokens: Tokens, kept: KeysValues) -> None:
        """A pass from block 0 on with cache entries that store each layer's keys and values."""
        residual = self.inner.input_to_embed(tokens, prepend_bos=False, padding_side="right")[0]
        entries = [_StoringEntry(kept) for _ in range(self.inner.cfg.n_layers)]
        self.inner(residual, return_type="logits", start_at_layer=0, past_kv_cache=entries)

    def resume(self, rows: JoiningRows) -> None:
        """A pass that begins at the layer where the first rows join."""
        n_layers = self.inner.cfg.n_layers
        entries = [_ExtendingEntry(rows, layer) for layer in range(n_layers)]
        first = rows.first_layer
        self.inner(rows.first, return_type="logits", start_at_layer=first, past_kv_cache=entries)

    def new_cache(self, n_rows: int) -> Any:
        """TransformerLens' cache of keys and values."""
        from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache  # noqa: PLC0415 - heavy

        return TransformerLensKeyValueCache.init_cache(self.inner.cfg, self.inner.cfg.device, n_rows)

    def run_cached(self, tokens: Tokens, cache: Any) -> RowLogits:
        """A pass with TransformerLens' cache. Rows are unpadded, so the mask that its cache requires is all ones."""
        return self.inner(
            tokens,
            return_type="logits",
            prepend_bos=False,
            padding_side="right",
            past_kv_cache=cache,
            attention_mask=torch.ones_like(tokens),
        )

    def final_norm(self, residual: Tensor) -> Tensor:
        """TransformerLens' final norm; the residual stream itself where the model has none."""
        norm = getattr(self.inner, "ln_final", None)
        return residual if norm is None else norm(residual)

    def unembedding(self) -> tuple[Tensor, Tensor | None]:
        """The model's own parameters."""
        return self.inner.unembed.W_U, self.inner.unembed.b_U


class _StoringEntry:
    """A TransformerLens cache entry that stores a layer's keys and values."""

    def __init__(self, kept: KeysValues) -> None:
        self._kept = kept
        self.past_keys = _Length(0)

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        self._kept.add(keys, values)
        return keys, values


class _ExtendingEntry:
    """A TransformerLens cache entry that puts the prefix before the keys and values of all rows."""

    def __init__(self, rows: JoiningRows, layer: int) -> None:
        self._rows, self._layer = rows, layer
        self.past_keys = _Length(rows.start)

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return self._rows.extended(self._layer, keys, values, axis=1)


@dataclass(frozen=True)
class _Length:
    """Stands for past keys, of which TransformerLens reads the number of positions only."""

    n_positions: int

    def size(self, dim: int) -> int:
        del dim
        return self.n_positions
