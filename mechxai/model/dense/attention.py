"""Dense attention: projections, scores and the pattern, for rows that share a prefix of keys and values."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.model.dense.parts import Affine, HeadNorm, Rotary

Edit = Callable[[Tensor], Tensor]
_Prefix = tuple[Float[Tensor, "prompt kv_head before d_head"], Float[Tensor, "prompt kv_head before d_head"]]


@dataclass(frozen=True)
class ScoreRule:
    """From queries and keys to the pattern: scale, soft-cap, position bias, mask and sinks.

    Attributes:
        scale: multiplies the products of queries and keys.
        softcap: scores become ``softcap * tanh(score / softcap)``; None without.
        window: a query sees this many keys, itself included; None for all before it.
        chunk: a query sees the keys of its own chunk of this many positions; None for all before it.
        slopes: ALiBi, ``[head]``: what a key's score gains per position; None without.
        sinks: ``[head]``: the score of a key that takes a share of the softmax and has no value; None without.
    """

    scale: float
    softcap: float | None = None
    window: int | None = None
    chunk: int | None = None
    slopes: Tensor | None = None
    sinks: Tensor | None = None

    @property
    def is_plain(self) -> bool:
        """Whether torch's own attention computes it."""
        return self.softcap is None and self.sinks is None

    def narrows(self, n_keys: int) -> bool:
        """Whether some key is masked, among ``n_keys``, that causality alone would leave."""
        return any(size is not None and size < n_keys for size in (self.window, self.chunk))

    def visible(self, n_pos: int, n_keys: int, device: torch.device) -> Bool[Tensor, "pos key"]:
        """The keys that the last ``n_pos`` of ``n_keys`` positions see."""
        keys = torch.arange(n_keys, device=device)
        queries = keys[n_keys - n_pos :, None]
        seen = keys <= queries
        if self.window is not None:
            seen &= queries - keys < self.window
        if self.chunk is not None:
            seen &= queries // self.chunk == keys // self.chunk
        return seen

    def bias(self, n_keys: int, dtype: torch.dtype) -> Float[Tensor, "head 1 key"] | None:
        """ALiBi's addition to the scores; equal for all queries, as a softmax does not see what all keys share."""
        if self.slopes is None:
            return None
        positions = torch.arange(n_keys, device=self.slopes.device)
        return (self.slopes.float()[:, None, None] * positions).to(dtype)

    def pattern(self, scores: Float[Tensor, "row head pos key"]) -> Float[Tensor, "row head pos key"]:
        """The softmax of masked scores, sinks included but not returned."""
        if self.sinks is None:
            return scores.softmax(-1)
        sinks = self.sinks.to(scores).view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        return torch.cat([scores, sinks], -1).softmax(-1)[..., :-1]


@dataclass(frozen=True)
class DenseAttention:
    """The weights of a block's attention.

    Attributes:
        q: to queries; ``k`` and ``v`` likewise to keys and values.
        k: to keys.
        v: to values.
        o: from ``z`` to the output of attention.
        rule: from queries and keys to the pattern.
        rotary: rotary position embedding, or None.
        q_norm: norm of the queries, or None.
        k_norm: norm of the keys, or None.
        clip: bound on queries, keys and values, or None.
        rotates_first: whether queries and keys are rotated before they are normalised (HunYuan).
    """

    q: Affine
    k: Affine
    v: Affine
    o: Affine
    rule: ScoreRule
    rotary: Rotary | None = None
    q_norm: HeadNorm | None = None
    k_norm: HeadNorm | None = None
    clip: float | None = None
    rotates_first: bool = False

    @property
    def heads_interact(self) -> bool:
        """Whether a norm over all heads lets the queries or keys of one head change those of others."""
        return any(norm is not None and norm.whole for norm in (self.q_norm, self.k_norm))

    def queries(self, q: Float[Tensor, "row pos head d_head"], start: int) -> Float[Tensor, "row pos head d_head"]:
        """Queries as scores read them, from site ``q`` at positions from ``start`` on."""
        return self._placed(q, self.q_norm, start)

    def keys(self, k: Float[Tensor, "row pos kv_head d_head"], start: int) -> Float[Tensor, "row pos kv_head d_head"]:
        """Keys as scores read them, from site ``k`` at positions from ``start`` on."""
        return self._placed(k, self.k_norm, start)

    def values(self, v: Tensor) -> Tensor:
        """Values as patterns weigh them, from site ``v``."""
        return v if self.clip is None else v.clamp(-self.clip, self.clip)

    def _placed(self, x: Tensor, norm: HeadNorm | None, start: int) -> Tensor:
        if self.rotates_first and self.rotary is not None:
            x = self.rotary(x, start)
        x = self.values(x if norm is None else norm(x))
        return x if self.rotary is None or self.rotates_first else self.rotary(x, start)

    def whole(
        self,
        q: Float[Tensor, "row head pos d_head"],
        k: Float[Tensor, "row kv_head pos d_head"],
        v: Float[Tensor, "row kv_head pos d_head"],
    ) -> Float[Tensor, "row pos head d_head"]:
        """``z`` of whole prompts by torch's own attention, where `ScoreRule.is_plain`."""
        n_pos, rule = q.shape[2], self.rule
        narrow, bias = rule.narrows(n_pos), rule.bias(n_pos, q.dtype)
        mask = rule.visible(n_pos, n_pos, q.device) if narrow or bias is not None else None
        if bias is not None and mask is not None:
            mask = bias.expand(-1, n_pos, -1).masked_fill(~mask, -torch.inf)
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=mask is None,
            scale=rule.scale,
            enable_gqa=q.shape[1] != k.shape[1],
        ).transpose(1, 2)


def attend(  # noqa: PLR0913 - what attention takes
    q: Float[Tensor, "row head pos d_head"],
    k: Float[Tensor, "row kv_head key d_head"],
    v: Float[Tensor, "row kv_head key d_head"],
    *,
    rule: ScoreRule,
    prefix: _Prefix | None = None,
    offset: int = 0,
    scores_edit: Edit | None = None,
    pattern_edit: Edit | None = None,
) -> Float[Tensor, "row pos head d_head"]:
    """``z`` of rows; the rows of one prompt share a prefix of keys and values.

    Args:
        q: queries, as scores read them.
        k: the rows' keys behind the prefix, likewise.
        v: the rows' values behind the prefix.
        rule: from queries and keys to the pattern.
        prefix: keys and values of the positions before, by prompt. Rows alternate: the first row of every prompt, then
            the second row of every prompt, and so on.
        offset: index of the first query among the keys ``k``.
        scores_edit: edits masked scores, ``[row, head, pos, src]``.
        pattern_edit: edits the pattern, ``[row, head, pos, src]``.
    """
    n_rows, n_heads, n_pos, d_head = q.shape
    n_kv, n_keys = k.shape[1], k.shape[2]
    grouped = (q * rule.scale).reshape(n_rows, n_kv, n_heads // n_kv * n_pos, d_head)
    scores = (grouped @ k.transpose(-1, -2)).view(n_rows, n_heads, n_pos, n_keys)
    n_before = 0
    if prefix is not None and prefix[0].shape[2]:
        n_before = prefix[0].shape[2]
        before = _shared(grouped, prefix[0].transpose(-1, -2))
        scores = torch.cat([before.reshape(n_rows, n_heads, n_pos, n_before), scores], -1)
    scores = _masked(scores, rule, first=n_before + offset)
    if scores_edit is not None:
        scores = scores_edit(scores)
    pattern = rule.pattern(scores)
    if pattern_edit is not None:
        pattern = pattern_edit(pattern)
    z = pattern[..., n_before:].reshape(n_rows, n_kv, -1, n_keys) @ v
    if n_before and prefix is not None:
        z = z + _shared(pattern[..., :n_before].reshape(n_rows, n_kv, -1, n_before), prefix[1])
    return z.view(n_rows, n_heads, n_pos, d_head).transpose(1, 2)


def _masked(scores: Tensor, rule: ScoreRule, *, first: int) -> Tensor:
    """Scores after soft-cap, position bias and mask; the first query is at position ``first``."""
    n_pos, n_keys = scores.shape[2:]
    if rule.softcap is not None:
        scores = rule.softcap * torch.tanh(scores / rule.softcap)
    bias = rule.bias(n_keys, scores.dtype)
    if bias is not None:
        scores = scores + bias
    if n_keys > first + 1 or rule.narrows(n_keys):  # some keys follow the first query, or lie outside its window
        stop = max(n_keys, first + n_pos)
        hidden = ~rule.visible(stop - first, stop, scores.device)[:n_pos, :n_keys]
        if scores.requires_grad or rule.narrows(n_keys):
            return scores.masked_fill(hidden, -torch.inf)
        scores[..., first + 1 :].masked_fill_(hidden[:, first + 1 :], -torch.inf)  # earlier keys are seen by all
    return scores


def _shared(
    left: Float[Tensor, "row kv_head many inner"], right: Float[Tensor, "prompt kv_head inner outer"]
) -> Float[Tensor, "row kv_head many outer"]:
    """Each row's matrix times its prompt's; the rows of a prompt in one product, which reads the prompt's once."""
    n_prompts, n_kv, inner, outer = right.shape
    turns = left.unflatten(0, (-1, n_prompts)).permute(1, 2, 0, 3, 4)  # [prompt, kv_head, turn, many, inner]
    product = turns.reshape(n_prompts, n_kv, -1, inner) @ right
    return product.view(*turns.shape[:4], outer).permute(2, 0, 1, 3, 4).flatten(0, 1)
