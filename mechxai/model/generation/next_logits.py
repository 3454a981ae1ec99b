"""Logits behind rows of tokens that grow step by step, with a cache or with full passes."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.shapes import Tokens
from mechxai.model.backends.attach import attached
from mechxai.model.backends.base import UNEMBED_HOOK, Backend
from mechxai.model.backends.config_lengths import ConfigLengths

Logits = Float[Tensor, "rows k d_vocab"]


class GrowingRows:
    """Rows of equal length, unpadded, that take up tokens; each call gives the logits behind them.

    With a cache, the model computes the new positions only. Where a text outgrows a rotary table (longrope), the cache
    holds keys of the old table: the whole text is run again where Hugging Face's ``generate`` does so.

    Attributes:
        cached: whether to use a cache; otherwise every call is a pass over the whole text.
    """

    def __init__(self, backend: Backend, n_rows: int, lengths: ConfigLengths, *, cached: bool) -> None:
        self.cached = cached
        self._backend, self._n_rows, self._lengths = backend, n_rows, lengths
        self._cache: Any = None
        self._tokens: Tokens | None = None

    def extended(self, tokens: Tokens, n_last: int = 1) -> Logits:
        """Appends tokens ``[rows, new]``, and gives the logits behind the last positions, ``[rows, n_last, d_vocab]``.

        Args:
            tokens: the next tokens of every row.
            n_last: at how many of the last positions, at most those that are new.
        """
        before = 0 if self._tokens is None else self._tokens.shape[1]
        self._tokens = tokens if self._tokens is None else torch.cat([self._tokens, tokens], dim=1)
        restarts = not before or self._changes_table(before, self._tokens.shape[1])
        last = {UNEMBED_HOOK: [lambda residual: residual[:, -n_last:]]}
        with attached(self._backend, (last,)), torch.no_grad():
            if not self.cached:
                return self._backend.run(self._tokens, None)
            if restarts:
                self._cache = self._backend.new_cache(self._n_rows)
            return self._backend.run_cached(self._tokens if restarts else tokens, self._cache)

    def _changes_table(self, before: int, after: int) -> bool:
        rotary = self._lengths.rotary
        return rotary is not None and self._lengths.rotary_restarts and before <= rotary < after
