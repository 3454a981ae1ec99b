"""The two objects TransformerLens gives, behind one small interface: what differs between them stands only here."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch

from mechxai.core.architecture import Architecture
from mechxai.core.errors import ModelSupportError, SiteError
from mechxai.core.shapes import Mask, RowLogits, Tokens
from mechxai.core.site import SITES, Site

# TransformerLens computes these hook points only while a flag of its own is set.
_FLAGS = {"result": "use_attn_result"}
_OF_MLPS = ("resid_mid", "mlp_out", "mlp_pre", "mlp_post", "ln2_scale", "ln2_normalized")


@runtime_checkable
class Backend(Protocol):
    """What `HookedModel` needs of a wrapped object."""

    name: ClassVar[str]
    masks_rows: ClassVar[bool]  # whether attention masks are made per starting row, so that others cannot join them
    in_place: ClassVar[frozenset[str]]  # sites whose residual stream only an edit in place reaches

    @property
    def inner(self) -> Any:
        """The wrapped object."""
        ...

    @property
    def hooks(self) -> Mapping[str, Any]:
        """Hook name -> TransformerLens ``HookPoint``."""
        ...

    def architecture(self) -> Architecture:
        """Sizes and block structure."""
        ...

    def check(self, site: Site, *, editing: bool = False) -> None:
        """Refuses a site that this object lacks, or, when editing, one on which an edit would have no effect."""
        ...

    @property
    def cut_hook(self) -> str:
        """The last hook whose positions may be thinned out before the unembedding."""
        ...

    def run(self, tokens: Tokens, mask: Mask | None) -> RowLogits:
        """Logits at every position that no hook has cut away."""
        ...


@dataclass(frozen=True)
class HookedTransformerBackend:
    """TransformerLens' own model (up to 3.9, where it was last shipped)."""

    inner: Any
    name: ClassVar[str] = "hooked_transformer"
    masks_rows: ClassVar[bool] = False
    in_place: ClassVar[frozenset[str]] = frozenset()

    @property
    def hooks(self) -> Mapping[str, Any]:
        """TransformerLens' own table."""
        return self.inner.hook_dict

    def architecture(self) -> Architecture:
        """Sizes and block structure, from ``inner.cfg``."""
        return _architecture(self.inner.cfg, causal=self.inner.cfg.attention_dir == "causal")

    def check(self, site: Site, *, editing: bool = False) -> None:
        """Refuses what the model does not have."""
        del editing  # every hook of a HookedTransformer is obeyed
        _check_exists(self, site)

    @property
    def cut_hook(self) -> str:
        """The last block's output."""
        return Site("resid_post", self.inner.cfg.n_layers - 1).hook

    def run(self, tokens: Tokens, mask: Mask | None) -> RowLogits:
        """Logits. No mask is passed: rows are padded on the right, where causal attention never looks."""
        del mask
        return self.inner(tokens, return_type="logits", prepend_bos=False, padding_side="right")


@dataclass(frozen=True)
class BridgeBackend:
    """TransformerLens' wrapper around a Hugging Face model (3.9 and 4.x)."""

    inner: Any
    name: ClassVar[str] = "bridge"
    masks_rows: ClassVar[bool] = True
    # The hook stands at the MLP norm's input; a new tensor returned there would miss the residual connection around it.
    in_place: ClassVar[frozenset[str]] = frozenset({"resid_mid"})

    @property
    def hooks(self) -> Mapping[str, Any]:
        """The bridge's table, kept: it is built anew, aliases and all, each time the bridge is asked for it."""
        return self._table

    @cached_property
    def _table(self) -> Mapping[str, Any]:
        return self.inner.hook_dict

    def architecture(self) -> Architecture:
        """Sizes and block structure, from ``inner.cfg``."""
        return _architecture(self.inner.cfg, causal="Bert" not in str(self.inner.cfg.architecture))

    def check(self, site: Site, *, editing: bool = False) -> None:
        """Refuses what the model does not have, and on BERT what the bridge shows but does not obey."""
        _check_exists(self, site)
        if self.architecture().causal:
            return
        way_out = "use resid_pre, attn_out, mlp_out, q, k, v or z"
        if editing and site.name in ("pattern", "attn_scores"):
            raise ModelSupportError(
                f"Editing {site} was asked",
                got="on BERT the bridge's pattern is a copy, edits have no effect",
                fix=way_out,
            )
        if site.name in ("resid_mid", "result"):
            raise ModelSupportError(
                f"Site {site} was asked", got="the bridge has no true value for it on post-norm BERT", fix=way_out
            )

    @property
    def cut_hook(self) -> str:
        """The input of the unembedding: Hugging Face models reshape by length before it."""
        return "unembed.hook_in"

    def run(self, tokens: Tokens, mask: Mask | None) -> RowLogits:
        """Logits; the mask matters only to bidirectional models."""
        needs_mask = mask is not None and not self.architecture().causal and not bool(mask.all())
        return self.inner(
            tokens,
            return_type="logits",
            prepend_bos=False,
            attention_mask=mask.long() if needs_mask and mask is not None else None,
        )


def hook_point(backend: Backend, hook: str) -> Any:
    """The hook point of a TransformerLens hook name (two names may share one)."""
    return backend.hooks[hook]


@contextmanager
def flags(backend: Backend, sites: Iterable[Site]) -> Iterator[None]:
    """TransformerLens' own flags set as the sites need them, and put back as they were."""
    wanted = {_FLAGS[site.name] for site in sites if site.name in _FLAGS}
    before = {flag: bool(getattr(backend.inner.cfg, flag, False)) for flag in wanted}
    try:
        for flag in wanted:
            _set_flag(backend, flag, value=True)
        yield
    finally:
        for flag, value in before.items():
            _set_flag(backend, flag, value=value)


def _set_flag(backend: Backend, flag: str, *, value: bool) -> None:
    if bool(getattr(backend.inner.cfg, flag, False)) == value:
        return
    try:
        getattr(backend.inner, f"set_{flag}")(value)
    except NotImplementedError as error:
        raise ModelSupportError(
            f"TransformerLens' {flag} was needed", got=str(error).splitlines()[0], fix="use z instead of result"
        ) from error


@contextmanager
def evaluating(backend: Backend) -> Iterator[None]:
    """The model in evaluation mode (no dropout), library warnings silent, and everything as it was afterwards."""
    # a bridge does not list the Hugging Face model it wraps among its modules
    roots = [backend.inner, *([original] if (original := getattr(backend.inner, "original_model", None)) else [])]
    training = list({id(module): module for root in roots for module in root.modules() if module.training}.values())
    try:
        for module in training:
            module.training = False
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=FutureWarning)
            yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def frozen(backend: Backend) -> Iterator[None]:
    """No parameter takes a gradient inside; those that did take one again afterwards."""
    parameters = [parameter for parameter in backend.inner.parameters() if parameter.requires_grad]
    try:
        for parameter in parameters:
            parameter.requires_grad_(requires_grad=False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(requires_grad=True)


def _check_exists(backend: Backend, site: Site) -> None:
    architecture = backend.architecture()
    if site.layer is not None and not 0 <= site.layer < architecture.n_layers:
        raise SiteError(
            f"Site {site} was asked", got=f"layer {site.layer}", allowed=f"layers 0 to {architecture.n_layers - 1}"
        )
    axis = site.row.head_axis
    if axis and site.head is not None and not 0 <= site.head < architecture.size(axis):
        kind = "key/value heads" if axis == "kv_head" else "heads"
        raise SiteError(
            f"Site {site} was asked", got=f"head {site.head}", allowed=f"{kind} 0 to {architecture.size(axis) - 1}"
        )
    if site.neuron is not None and not 0 <= site.neuron < architecture.d_mlp:
        raise SiteError(
            f"Site {site} was asked", got=f"neuron {site.neuron}", allowed=f"neurons 0 to {architecture.d_mlp - 1}"
        )
    if architecture.attn_only and site.name in _OF_MLPS:
        raise SiteError(
            f"Site {site} was asked of {architecture.family}",
            got="an attention-only model",
            allowed=[name for name in SITES if name not in _OF_MLPS],
        )
    if _is_absent(backend, architecture, site.name) or site.hook not in backend.hooks:
        have = [name for name in SITES if not _is_absent(backend, architecture, name)]
        why = (
            "attention and MLP read the same residual stream"
            if site.name == "resid_mid"
            else "this model has no such activation"
        )
        raise SiteError(f"Site {site} was asked of {architecture.family}", got=why, allowed=have)


def _is_absent(backend: Backend, architecture: Architecture, name: str) -> bool:
    """Whether no layer has this site."""
    by_shape = (name == "resid_mid" and architecture.parallel) or (
        name == "pos_embed" and architecture.positions == "rotary"
    )
    return by_shape or SITES[name].hook.format(layer=0) not in backend.hooks


def _architecture(cfg: Any, *, causal: bool) -> Architecture:
    positions = {"rotary": "rotary", "shortformer": "shortformer", "alibi": "alibi"}
    softcap = getattr(cfg, "output_logits_soft_cap", None)
    family = getattr(cfg, "architecture", None) or getattr(cfg, "original_architecture", None)
    return Architecture(
        family=str(family or "custom"),
        n_layers=cfg.n_layers,
        n_heads=cfg.n_heads,
        n_kv_heads=getattr(cfg, "n_key_value_heads", None) or cfg.n_heads,
        d_model=cfg.d_model,
        d_head=cfg.d_head,
        d_mlp=cfg.d_mlp or 0,
        d_vocab=cfg.d_vocab,
        n_ctx=cfg.n_ctx,
        parallel=bool(getattr(cfg, "parallel_attn_mlp", False)),
        causal=causal,
        attn_only=bool(getattr(cfg, "attn_only", False)),
        gated_mlp=bool(getattr(cfg, "gated_mlp", False)),
        norm=str(cfg.normalization_type or "none").removesuffix("Pre"),
        positions=positions.get(str(cfg.positional_embedding_type), "standard"),
        logit_softcap=float(softcap) if softcap is not None and softcap > 0 else 0.0,
    )


def as_dtype(name: str | torch.dtype) -> torch.dtype:
    """The torch dtype of a name (``float32``, ``bfloat16``).

    Raises:
        ModelSupportError: not a floating-point dtype.
    """
    dtype = getattr(torch, name, None) if isinstance(name, str) else name
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ModelSupportError(f"dtype={name!r} was asked", allowed="float32, float64, bfloat16, float16")
    return dtype
