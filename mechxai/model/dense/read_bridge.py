"""The parts of a bridge's blocks: TransformerLens' components and the Hugging Face modules under them."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from torch import Tensor

from mechxai.core.errors import ModelSupportError
from mechxai.model.backends.base import Backend
from mechxai.model.backends.config_numbers import config_numbers
from mechxai.model.backends.effective_weight import effective_affine
from mechxai.model.dense.attention import DenseAttention, ScoreRule
from mechxai.model.dense.fitting import ACTIVATIONS, AttentionParts, head_norms, mask_rules, rule_candidates
from mechxai.model.dense.norms import head_norm
from mechxai.model.dense.parts import Affine, HeadNorm, Mlp, ModuleMlp, NeuronMlp
from mechxai.model.dense.rotary_tables import bridge_rotaries, rotary_tables
from mechxai.model.dense.topology import Wiring
from mechxai.model.dense.trace import BlockTrace, NotCoveredError

_ACTIVATION_NAMES = ("act_fn", "activation_fn", "activation_func", "act", "activation", "gelu_impl")
_CLIPS = ("clip_qkv",)


class BridgeReader:
    """Reads the parts of every block of a `TransformerBridge`."""

    def __init__(self, backend: Backend) -> None:
        inner = backend.inner
        self.inner, self.a, self.numbers = inner, backend.architecture(), config_numbers(backend)
        self.config: Any = getattr(inner.original_model, "config", None)
        self.tables = rotary_tables(inner)

    def factors(self) -> list[float]:
        """The numbers of the configuration."""
        return self.numbers

    def attention(self, trace: BlockTrace, wired: Wiring) -> AttentionParts:
        """The parts of a block's attention."""
        bridge = trace.block.attn
        module = getattr(bridge, "original_component", None) or bridge
        d_in = wired.attention_read.shape[-1]
        width = self.a.n_heads * self.a.d_head
        q, k, v, o = (
            self._affine(bridge, name, size) for name, size in (("q", d_in), ("k", d_in), ("v", d_in), ("o", width))
        )
        settings = trace.calls["attn"].settings
        q_norm, k_norm = head_norms(
            self._head_norm(trace, "q", self.a.n_heads), self._head_norm(trace, "k", self.a.n_kv_heads)
        )
        clip = next((value for name in _CLIPS if (value := getattr(self.config, name, None))), None)
        plain = DenseAttention(q, k, v, o, ScoreRule(1.0), None, q_norm, k_norm, clip)
        names = ("sliding_window", "window_size")
        sizes = [getattr(part, name, None) for part in (module, self.config) for name in names]
        rules = rule_candidates(
            self._scales(module),
            ScoreRule(1.0, softcap=self._softcap(module), sinks=_detached(getattr(module, "sinks", None))),
            windows=mask_rules(settings.get("attention_mask"), [size for size in sizes if isinstance(size, int)]),
            slopes=_slopes(settings, self.a.n_heads),
        )
        rotaries = bridge_rotaries(self.tables, module, settings.get("position_embeddings"))
        return AttentionParts(plain, rules, rotaries)

    def mlps(self, trace: BlockTrace) -> list[Mlp]:
        """Candidates for a block's MLP: neurons, then the module itself."""
        bridge: Any = getattr(trace.block, "mlp", None)
        if bridge is None:
            return []
        module = getattr(bridge, "original_component", None) or bridge
        candidates: list[Mlp] = []
        names = getattr(bridge, "_modules", {})
        if {"in", "out"} <= set(names):
            with suppress(NotCoveredError):  # the module itself is the next candidate
                candidates += self._neuron_mlps(bridge, module)
        return [*candidates, ModuleMlp(module)]

    def _neuron_mlps(self, bridge: Any, module: Any) -> list[Mlp]:
        first = self._affine(bridge, "in", self.a.d_model)
        out = self._affine(bridge, "out", first.weight.shape[1])
        gate = self._affine(bridge, "gate", self.a.d_model) if "gate" in bridge._modules else None
        named = [ACTIVATIONS[name] for name in (str(self.inner.cfg.act_fn),) if name in ACTIVATIONS]
        own = [getattr(module, name) for name in _ACTIVATION_NAMES if callable(getattr(module, name, None))]
        linear = None if gate is None else first
        return [NeuronMlp(gate or first, linear, None, out, activation) for activation in (*named, *own)]

    def _affine(self, bridge: Any, name: str, d_in: int) -> Affine:
        component = getattr(bridge, "_modules", {}).get(name)
        if component is None:
            raise NotCoveredError(f"{type(bridge).__name__} has no separate layer {name!r}")
        try:
            return Affine(*effective_affine(component, d_in))
        except ModelSupportError as error:
            raise NotCoveredError(f"layer {name!r} is not linear ({error})") from error

    def _head_norm(self, trace: BlockTrace, name: str, n_heads: int) -> HeadNorm | None:
        long = {"q": "query", "k": "key"}[name]
        names = (f"attn.{name}_norm", f"attn.{name}_layernorm", f"attn.{long}_layernorm", f"attn.{long}_norm")
        call = next((trace.calls[norm] for norm in names if norm in trace.calls), None)
        eps = float(getattr(self.inner.cfg, "eps", 1e-5))
        return None if call is None else head_norm(call, n_heads, eps)

    def _scales(self, module: Any) -> list[float]:
        names = ("scaling", "scale", "softmax_scale", "attention_multiplier", "inv_norm_factor", "scale_attn")
        own = [_number(getattr(module, name, None)) for name in names]
        divisors = [_number(getattr(module, name, None)) for name in ("norm_factor", "scale_attn")]
        return [
            *(scale for scale in own if scale),
            *(1 / divisor for divisor in divisors if divisor),
            self.a.d_head**-0.5,
            1.0,
        ]

    def _softcap(self, module: Any) -> float | None:
        cap = getattr(module, "attn_logit_softcapping", None) or getattr(self.config, "attn_logit_softcapping", None)
        return float(cap) if cap else None


def _slopes(settings: Mapping[str, Any], n_heads: int) -> list[Tensor | None]:
    """The slopes of a recorded ALiBi addition to the scores; none where there is no such addition."""
    alibi = next((settings[name] for name in ("alibi", "position_bias") if name in settings), None)
    if not isinstance(alibi, Tensor) or alibi.shape[-1] < 2:
        return [None]
    by_head = alibi.reshape(-1, alibi.shape[-1])
    if len(by_head) % n_heads:
        return [None]
    by_head = by_head.reshape(-1, n_heads, by_head.shape[-1])[0] if len(by_head) > n_heads else by_head
    return [(by_head[:, -1] - by_head[:, 0]) / (by_head.shape[-1] - 1)]


def _detached(tensor: Any) -> Tensor | None:
    return tensor.detach() if isinstance(tensor, Tensor) else None


def _number(value: Any) -> float | None:
    if isinstance(value, Tensor) and value.numel() == 1:
        value = float(value)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
