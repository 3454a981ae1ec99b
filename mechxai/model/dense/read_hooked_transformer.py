"""The parts of a HookedTransformer's blocks, from TransformerLens' parameters and settings."""

from typing import Any

from torch import Tensor

from mechxai.model.backends.base import Backend
from mechxai.model.backends.config_numbers import config_numbers
from mechxai.model.dense.attention import DenseAttention, ScoreRule
from mechxai.model.dense.fitting import ACTIVATIONS, AttentionParts, head_norms, rule_candidates
from mechxai.model.dense.norms import head_norm
from mechxai.model.dense.parts import Affine, HeadNorm, Mlp, ModuleMlp, NeuronMlp
from mechxai.model.dense.rotary_tables import hooked_transformer_rotaries
from mechxai.model.dense.topology import Wiring
from mechxai.model.dense.trace import BlockTrace, NotCoveredError

# settings that change attention in ways that dense blocks do not cover
_UNSUPPORTED = ("use_logn_attn", "use_dynamic_ntk_rope")


class HookedTransformerReader:
    """Reads the parts of every block of a `HookedTransformer`."""

    def __init__(self, backend: Backend) -> None:
        inner = backend.inner
        self.inner, self.a, self.numbers = inner, backend.architecture(), config_numbers(backend)
        unsupported = [name for name in _UNSUPPORTED if getattr(inner.cfg, name, None)]
        if unsupported:
            raise NotCoveredError(f"{unsupported[0]} is on")

    def factors(self) -> list[float]:
        """The numbers of the configuration."""
        return self.numbers

    def attention(self, trace: BlockTrace, wired: Wiring) -> AttentionParts:
        """The parts of a block's attention."""
        del wired
        attn: Any = trace.block.attn
        grouped = [getattr(attn, f"_W_{name}", None) for name in "KV"]
        key, value = (
            weight if weight is not None else getattr(attn, f"W_{name}")
            for weight, name in zip(grouped, "KV", strict=True)
        )
        biases = [_bias(attn, f"_b_{name}", f"b_{name}") for name in "QKV"]
        q_norm, k_norm = head_norms(
            self._head_norm(trace, "q", self.a.n_heads), self._head_norm(trace, "k", self.a.n_kv_heads)
        )
        plain = DenseAttention(
            Affine(_by_head(attn.W_Q), biases[0]),
            Affine(_by_head(key), biases[1]),
            Affine(_by_head(value), biases[2]),
            Affine(attn.W_O.detach().reshape(-1, self.a.d_model), _detached(getattr(attn, "b_O", None))),
            ScoreRule(1.0),
            None,
            q_norm,
            k_norm,
            getattr(self.inner.cfg, "clip_qkv", None),
        )
        softcap = getattr(self.inner.cfg, "attn_scores_soft_cap", None) or 0.0
        window = self.inner.cfg.window_size if getattr(attn, "attn_type", "global") == "local" else None
        base = ScoreRule(
            1.0, softcap=float(softcap) if softcap > 0 else None, sinks=_detached(getattr(attn, "sinks", None))
        )
        alibi = getattr(attn, "alibi", None)
        slopes = [alibi[:, -1, -1] - alibi[:, -1, -2]] if isinstance(alibi, Tensor) and alibi.shape[-1] > 1 else [None]
        rules = rule_candidates(
            [1.0 / float(attn.attn_scale)], base, windows=[ScoreRule(1.0, window=window)], slopes=slopes
        )
        return AttentionParts(plain, rules, hooked_transformer_rotaries(self.inner, attn))

    def mlps(self, trace: BlockTrace) -> list[Mlp]:
        """Candidates for a block's MLP: neurons, then the module itself."""
        mlp: Any = getattr(trace.block, "mlp", None)
        if mlp is None:
            return []
        activation = ACTIVATIONS.get(str(self.inner.cfg.act_fn), getattr(mlp, "act_fn", None))
        if not hasattr(mlp, "W_in") or not hasattr(mlp, "W_out") or activation is None:
            return [ModuleMlp(mlp)]
        gate, b_in = getattr(mlp, "W_gate", None), getattr(mlp, "b_in", None)
        first = mlp.W_in if gate is None else gate
        neurons = NeuronMlp(
            Affine(first.detach(), None if gate is not None else _detached(b_in)),
            None if gate is None else Affine(mlp.W_in.detach(), None),
            None if gate is None or b_in is None or not bool(b_in.any()) else b_in.detach(),
            Affine(mlp.W_out.detach(), _detached(getattr(mlp, "b_out", None))),
            activation,
        )
        return [neurons, ModuleMlp(mlp)]

    def _head_norm(self, trace: BlockTrace, name: str, n_heads: int) -> HeadNorm | None:
        call = trace.calls.get(f"attn.{name}_norm")
        return None if call is None else head_norm(call, n_heads, float(self.inner.cfg.eps))


def _by_head(weight: Tensor) -> Tensor:
    """``[head, d_model, d_head]`` as the matrix ``[d_model, head * d_head]``; a view where the strides allow."""
    return weight.detach().permute(1, 0, 2).reshape(weight.shape[1], -1)


def _bias(module: Any, *names: str) -> Tensor | None:
    """The first bias that the module has, flat."""
    bias = next((value for name in names if (value := getattr(module, name, None)) is not None), None)
    return None if bias is None else bias.detach().reshape(-1)


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()
