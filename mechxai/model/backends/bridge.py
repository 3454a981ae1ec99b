"""TransformerLens' wrapper around a Hugging Face model behind the `Backend` interface."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from mechxai.core.architecture import Architecture
from mechxai.core.cached import cached_property
from mechxai.core.errors import ModelSupportError, SiteError
from mechxai.core.shapes import Mask, RowLogits, Tokens
from mechxai.core.site import Site
from mechxai.core.site_table import SITES
from mechxai.model.backends.base import are_plain, check_exists, count_experts, modules, read_architecture
from mechxai.model.backends.config_lengths import hugging_face_config
from mechxai.model.backends.edit_faults import EditCheck
from mechxai.model.backends.effective_weight import AffineMemory, is_plain_linear, unwrapped
from mechxai.model.backends.masked import head_transform, is_causal
from mechxai.model.backends.prefix import JoiningRows, KeysValues
from mechxai.model.backends.silent_hooks import silent_hooks
from mechxai.model.backends.weight_state import same_values
from mechxai.model.dense.weight_layout import optimize_convolution_layout


@dataclass(frozen=True)
class BridgeBackend:
    """TransformerLens' wrapper around a Hugging Face model (3.9 and 4.x)."""

    inner: Any
    borrowed: bool = False  # a user's object, whose weights keep their memory layout
    name: ClassVar[str] = "bridge"
    masks_rows: ClassVar[bool] = True
    in_place: ClassVar[frozenset[str]] = frozenset(name for name, row in SITES.items() if "bridge" in row.in_place_on)

    def __post_init__(self) -> None:
        """Refuses virtual tokens, and attention that is not what the configuration says; one small pass."""
        adapter = getattr(getattr(self.inner, "original_model", None), "active_peft_config", None)
        if getattr(adapter, "is_prompt_learning", False):
            raise ModelSupportError(
                f"The adapter {type(adapter).__name__} puts virtual tokens before every prompt, so that positions of "
                "activations are not those of the tokens",
                fix="Use an adapter that changes weights (LoRA, DoRA, IA3), bridged from peft_model.base_model.model",
            )
        self.architecture()

    @property
    def hooks(self) -> Mapping[str, Any]:
        """The bridge's table of hook points, built once: the bridge builds it anew at each access."""
        return self._table

    @cached_property
    def _table(self) -> Mapping[str, Any]:
        return self.inner.hook_dict

    def architecture(self) -> Architecture:
        """Sizes and block structure, from ``inner.cfg``."""
        return self._architecture

    @cached_property
    def _architecture(self) -> Architecture:
        architecture = read_architecture(self.inner.cfg, causal=is_causal(self.inner))
        config = hugging_face_config(self)
        return replace(architecture, n_experts=max(architecture.n_experts, count_experts(config)))

    @cached_property
    def _check_edit(self) -> EditCheck:
        return EditCheck()

    @cached_property
    def _silent(self) -> frozenset[str]:
        return silent_hooks(self)

    def check(self, site: Site, *, editing: bool = False) -> None:
        """Refuses a site that the model lacks, that no pass runs through, or that is a copy and to be edited."""
        check_exists(self, site)
        if site.hook in self._silent:
            raise SiteError(
                f"{self.architecture().family} has no site {site}: TransformerLens shows a hook point, but no forward "
                "pass runs through it",
                fix="Use another site, such as resid_pre",
            )
        if site.name == "result":
            self._check_result(site)
        if editing:
            self._check_edit(self, site, self._silent)
        if not (self.architecture().causal or site.row.masked_bridge):
            raise ModelSupportError(
                f"{site} is not available on {self.architecture().family}: the bridge has no true value for it in "
                "post-norm blocks",
                fix="Use resid_pre, attn_out, mlp_out, q, k, v or z",
            )

    def _check_result(self, site: Site) -> None:
        """Refuses ``result`` where the output projection is not the product with its weight that TransformerLens reads.

        Adapters and quantised weights are left out of TransformerLens' ``hook_result``.
        """
        for layer in range(self.architecture().n_layers) if site.layer is None else (site.layer,):
            projection = getattr(getattr(self.inner.blocks[layer], "attn", None), "o", None)
            if projection is not None and not is_plain_linear(unwrapped(projection)):
                kind = type(unwrapped(projection)).__name__
                raise ModelSupportError(
                    f"{site} is not available: the output projection of layer {layer} is no plain layer ({kind}), and "
                    "TransformerLens reads its stored weight only",
                    fix="Use site z, or merge the adapters into the weights",
                )

    def run(self, tokens: Tokens, mask: Mask | None) -> RowLogits:
        """Logits; the mask matters only to bidirectional models."""
        needs_mask = mask is not None and not self.architecture().causal and not bool(mask.all())
        return self.inner(
            tokens,
            return_type="logits",
            prepend_bos=False,
            attention_mask=mask.long() if needs_mask and mask is not None else None,
        )

    def resumes(self) -> bool:
        """Whether attention is causal."""
        return self.architecture().causal

    def plain_weights(self) -> bool:
        """Whether the weights are neither quantised nor spread over devices."""
        return are_plain(self.inner)

    def optimize_layout(self) -> None:
        """Transposes GPT-2's widest weights in memory; linear layers of other models are already as they are read."""
        if not self.borrowed:
            self._laid_out  # noqa: B018 - once

    @cached_property
    def _laid_out(self) -> bool:
        with same_values(self):
            optimize_convolution_layout(modules(self))
        return True

    def record(self, tokens: Tokens, kept: KeysValues) -> None:
        """A pass with a Hugging Face cache that stores keys and values layer by layer."""
        from mechxai.model.backends.kv_cache import keeping_cache  # noqa: PLC0415 - heavy

        self.inner(
            tokens,
            return_type="logits",
            prepend_bos=False,
            past_key_values=keeping_cache(kept, self.inner.cfg.n_layers),
        )

    def resume(self, rows: JoiningRows) -> None:
        """A pass that starts with a placeholder row, which the first joining rows replace."""
        from mechxai.model.backends.kv_cache import expanding_cache  # noqa: PLC0415 - heavy

        cache = expanding_cache(rows, self.inner.cfg.n_layers)
        self.inner(rows.placeholder, return_type="logits", prepend_bos=False, past_key_values=cache)

    def new_cache(self, n_rows: int) -> Any:
        """The cache that Hugging Face makes for the model: windows, states of state-space layers."""
        from transformers.cache_utils import DynamicCache  # noqa: PLC0415 - heavy

        del n_rows
        config = hugging_face_config(self)
        return DynamicCache() if config is None else DynamicCache(config=config)

    def run_cached(self, tokens: Tokens, cache: Any) -> RowLogits:
        """A pass with Hugging Face's cache."""
        options = {self._cache_name: cache, "use_cache": True}
        return self.inner(tokens, return_type="logits", prepend_bos=False, **options)

    @cached_property
    def _cache_name(self) -> str:
        """The argument of the model's forward function that takes a cache."""
        parameters = inspect.signature(self.inner.original_model.forward).parameters
        return "cache_params" if "cache_params" in parameters else "past_key_values"

    def final_norm(self, residual: Tensor) -> Tensor:
        """The bridge's final norm; of masked models the whole head: a layer, an activation, then the norm."""
        transform = head_transform(self.inner)
        if transform is not None:
            return transform(residual)
        return self.inner.ln_final(residual) if hasattr(self.inner, "ln_final") else residual

    def unembedding(self) -> tuple[Tensor, Tensor | None]:
        """The weight with which the head acts: views of a plain head's weight, measured with adapters or quantised."""
        return self._unembedding(self.inner.unembed, self.architecture().d_model)

    @cached_property
    def _unembedding(self) -> AffineMemory:
        return AffineMemory()
