"""The composition of attention and MLP from the parts that a model's modules have, tested on a recorded pass."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mechxai.model.dense.attention import DenseAttention, ScoreRule, attend
from mechxai.model.dense.parts import HeadNorm, Mlp, Rotary
from mechxai.model.dense.topology import Wiring, close
from mechxai.model.dense.trace import NotCoveredError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_fast": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu": F.gelu,
    "silu": F.silu,
    "swish": F.silu,
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
}


@dataclass(frozen=True)
class AttentionParts:
    """What a model's attention module offers; the candidates are tried in order.

    Attributes:
        q: projections to queries, keys and values, and from ``z``, with norms and clipping, without rotation.
        rules: candidates for the rule from queries and keys to the pattern.
        rotaries: candidates for the rotation.
    """

    q: DenseAttention
    rules: Sequence[ScoreRule]
    rotaries: Sequence[Rotary | None]


def fitted_attention(
    parts: AttentionParts, wired: Wiring, z: Tensor, *, n_heads: int, n_kv_heads: int
) -> DenseAttention:
    """The composition that gives the recorded ``z``, ``[prompt, pos, head, d_head]``.

    Raises:
        NotCoveredError: none does, or the sizes of the projections do not fit.
    """
    plain, d_head = parts.q, z.shape[-1]
    read = wired.attention_read
    sizes = [(plain.q, n_heads), (plain.k, n_kv_heads), (plain.v, n_kv_heads)]
    if any(affine.weight.shape[1] != n * d_head for affine, n in sizes):
        raise NotCoveredError("queries, keys or values have other sizes than heads times head size")
    q, k, v = (affine(read.flatten(0, 1)).view(*read.shape[:2], -1, d_head) for affine, _ in sizes)
    for rotary in parts.rotaries:
        for rule in parts.rules:
            if rotary is not None and rotary.table(2)[0].shape[-1] > d_head:
                continue
            orders = (False, True) if rotary is not None and plain.q_norm is not None else (False,)
            for rotates_first in orders:
                candidate = replace(plain, rule=rule, rotary=rotary, rotates_first=rotates_first)
                queries, keys = candidate.queries(q, 0).transpose(1, 2), candidate.keys(k, 0).transpose(1, 2)
                if close(attend(queries, keys, candidate.values(v).transpose(1, 2), rule=rule), z):
                    return candidate
    raise NotCoveredError("attention is more than projections, norms, rotation, mask and softmax")


def fitted_mlp(candidates: Sequence[Mlp], wired: Wiring) -> Mlp | None:
    """The first candidate that gives the recorded output of the MLP, row by row; None without an MLP.

    Raises:
        NotCoveredError: none does.
    """
    if wired.mlp_read is None or wired.mlp_output is None:
        return None
    rows, output = wired.mlp_read.flatten(0, 1), wired.mlp_output.flatten(0, 1)
    for candidate in candidates:
        some = slice(0, max(1, len(rows) // 2))
        with torch.no_grad():
            if _gives(candidate, rows, output) and _gives(candidate, rows[some], output[some]):
                return candidate
    raise NotCoveredError("the MLP is neither plain nor gated, and its rows interact")


def _gives(mlp: Mlp, rows: Tensor, output: Tensor) -> bool:
    try:
        return close(mlp(rows), output)
    except TypeError:  # a module that takes more than its input
        return False


def rule_candidates(
    scales: Sequence[float], base: ScoreRule, *, windows: Sequence[ScoreRule], slopes: Sequence[Tensor | None]
) -> list[ScoreRule]:
    """Every combination of scales, masks and ALiBi slopes with a soft-cap and sinks, the likeliest first."""
    rules = []
    for narrow in windows:
        for slope in slopes:
            for scale in dict.fromkeys(scales):
                of_scale = [slope] if slope is None else [slope, slope * scale]  # Falcon scales slopes too
                rules += [
                    replace(base, scale=scale, window=narrow.window, chunk=narrow.chunk, slopes=of_rule)
                    for of_rule in of_scale
                ]
    return rules


def mask_rules(mask: Tensor | None, sizes: Sequence[int | None]) -> list[ScoreRule]:
    """The windows or chunks that a recorded attention mask shows; those of given sizes where it was not recorded.

    Args:
        mask: ``[prompt, 1, pos, key]``, True or 0 where a key is seen.
        sizes: sizes of windows to try.
    """
    windows = [ScoreRule(1.0, window=size) for size in dict.fromkeys(sizes) if size]
    if not isinstance(mask, Tensor) or mask.ndim != 4 or mask.shape[-1] != mask.shape[-2]:
        return [ScoreRule(1.0), *windows]
    seen = mask[0, 0] if mask.dtype == torch.bool else mask[0, 0] > -1
    if not bool(seen.diagonal().all()):  # MPT marks what is masked
        seen = ~seen
    n_pos = len(seen)
    counts = seen.sum(1)
    reset = next((pos for pos in range(1, n_pos) if int(counts[pos]) < int(counts[pos - 1])), None)
    candidates = [ScoreRule(1.0), ScoreRule(1.0, window=int(counts.max()))]
    candidates += [] if reset is None else [ScoreRule(1.0, chunk=reset)]
    for rule in candidates:
        if torch.equal(rule.visible(n_pos, n_pos, seen.device), seen):
            return [rule, *windows]  # some attention narrows the mask that it is given (GPT-Neo)
    raise NotCoveredError("the attention mask is neither causal, nor a window, nor chunks")


def head_norms(q_norm: HeadNorm | None, k_norm: HeadNorm | None) -> tuple[HeadNorm | None, HeadNorm | None]:
    """Norms of queries and keys; both or none.

    Raises:
        NotCoveredError: only one of them exists.
    """
    if (q_norm is None) != (k_norm is None):
        raise NotCoveredError("only queries or only keys are normalised")
    return q_norm, k_norm
