"""Masked places of attention: edits of scores and patterns never open the causal mask, the padding or a window."""

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from mechxai.core.site import Site
from mechxai.model.backends.base import Backend
from mechxai.model.backends.config_lengths import config_lengths, hugging_face_config

_SITES = frozenset({"attn_scores", "pattern"})


@dataclass(frozen=True)
class AttentionMask:
    """The places that a model's attention may mask.

    Attributes:
        causal: whether a position never sees later ones.
        window: the smallest number of positions that a layer with a sliding window sees; None without one.
        chunk: the size of the chunks that positions do not see across; None without them.
    """

    causal: bool = True
    window: int | None = None
    chunk: int | None = None

    def keep(self, before: Tensor, after: Tensor, site: Site, *, dest: Tensor, lengths: Tensor | None = None) -> Tensor:
        """An edited activation with its masked entries as they were before.

        Args:
            before: the activation at the site, ``[row, *axes]``; at a single destination position without that axis.
            after: the same, edited.
            site: any site; only attention scores and patterns have masked entries.
            dest: destination positions, ``[dest_pos]``, or ``[row]`` where the site is at a single one.
            lengths: real tokens per row, where tokens after them are masked.
        """
        if site.name not in _SITES:
            return after
        if site.name == "attn_scores":
            masked = masked_scores(before)
        else:  # a masked entry is exactly 0; so may be a small one, which tells nothing about the mask
            masked = (before == 0) & self._maybe_masked(before, site, dest=dest.to(before.device), lengths=lengths)
        return torch.where(masked, before, after)

    def _maybe_masked(self, before: Tensor, site: Site, *, dest: Tensor, lengths: Tensor | None) -> Bool[Tensor, "..."]:
        """Where the model's kind of mask can stand, as a view that broadcasts to ``before``."""
        src = torch.arange(before.shape[-1], device=before.device)
        ahead = src - dest[..., None]  # [dest_pos or row, src_pos]
        masked = ahead > 0 if self.causal else torch.zeros_like(ahead, dtype=torch.bool)
        if self.window is not None:
            masked = masked | (ahead.abs() >= (self.window if self.causal else max(1, self.window // 2)))
        if self.chunk is not None:
            masked = masked | (src // self.chunk != dest[..., None] // self.chunk)
        per_row = (-1, *(1,) * (before.ndim - 2), len(src))
        if site.pos is not None:
            masked = masked.reshape(per_row)
        if lengths is None:
            return masked
        return masked | (src >= lengths.to(src)[:, None]).reshape(per_row)


def masked_scores(scores: Tensor) -> Bool[Tensor, "..."]:
    """Which attention scores are masked: those at -inf, or at the dtype's minimum plus a score."""
    return scores <= torch.finfo(scores.dtype).min / 2


_masks: "weakref.WeakKeyDictionary[Any, AttentionMask]" = weakref.WeakKeyDictionary()


def attention_mask_of(backend: Backend) -> AttentionMask:
    """The kind of mask of a model, from its configuration."""
    if backend.inner not in _masks:
        windows = config_lengths(backend).windows
        chunk = getattr(hugging_face_config(backend), "attention_chunk_size", None)
        _masks[backend.inner] = AttentionMask(backend.architecture().causal, min(windows, default=None), chunk)
    return _masks[backend.inner]
