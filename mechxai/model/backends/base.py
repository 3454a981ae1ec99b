"""One interface to both TransformerLens objects, and the code they share.

The differences between them are in `hooked_transformer` and `bridge` only.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from mechxai.core.architecture import Architecture
from mechxai.core.errors import ModelSupportError, SiteError, out_of_range
from mechxai.core.exclusive import exclusive
from mechxai.core.shapes import Mask, RowLogits, Tokens
from mechxai.core.site import Site
from mechxai.core.site_table import SITES, site_name
from mechxai.model.backends.prefix import JoiningRows, KeysValues

BackendName = Literal["auto", "hooked_transformer", "bridge"]
Processing = Literal["folded", "raw"]
UNEMBED_HOOK = "unembed.hook_in"  # the input of the unembedding, on both


@runtime_checkable
class Backend(Protocol):
    """A wrapped TransformerLens object, as `HookedModel` uses it."""

    name: ClassVar[str]
    masks_rows: ClassVar[bool]  # whether attention masks cover the starting rows only, so that no row can join later
    in_place: ClassVar[frozenset[str]]  # sites where only an edit in place reaches the residual stream

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
        """Refuses a site that the model does not have, or, when editing, one where an edit has no effect."""
        ...

    def run(self, tokens: Tokens, mask: Mask | None) -> RowLogits:
        """Logits at every position, or at those that a hook has selected."""
        ...

    def record(self, tokens: Tokens, kept: KeysValues) -> None:
        """A pass that stores the keys and values of every layer in ``kept``; causal models only."""
        ...

    def resume(self, rows: JoiningRows) -> None:
        """A pass over the last positions of rows that join at later layers; earlier keys and values are in ``rows``."""
        ...

    def new_cache(self, n_rows: int) -> Any:
        """An empty cache of keys and values for `run_cached`; causal models only."""
        ...

    def run_cached(self, tokens: Tokens, cache: Any) -> RowLogits:
        """Logits of the next tokens of every row; the cache holds earlier positions and takes these up."""
        ...

    def resumes(self) -> bool:
        """Whether `record` and `resume` work for this model."""
        ...

    def plain_weights(self) -> bool:
        """Whether the weights are ordinary tensors on one device, neither quantised nor spread over several."""
        ...

    def optimize_layout(self) -> None:
        """Gives weights that are not a user's the layout that passes read fastest; values and shapes stay the same."""
        ...

    def final_norm(self, residual: Tensor) -> Tensor:
        """The layers between the last block and the unembedding, ``[row, pos, d_model]`` to the same shape."""
        ...

    def unembedding(self) -> tuple[Tensor, Tensor | None]:
        """``W_U``, ``[d_model, d_vocab]``, and ``b_U``, ``[d_vocab]`` or None; no copies."""
        ...


def hook_point(backend: Backend, hook: str) -> Any:
    """The hook point of a TransformerLens hook name; two names may share one."""
    return backend.hooks[hook]


@contextmanager
def flags(backend: Backend, sites: Iterable[Site]) -> Iterator[None]:
    """Sets the TransformerLens flags that the sites need, and restores them afterwards."""
    wanted = {site.row.flag for site in sites if site.row.flag}
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
            f"TransformerLens cannot set {flag} for this model: {str(error).splitlines()[0]}",
            fix="Use site z instead of result",
        ) from error


def modules(holder: Any) -> list[Any]:
    """Every module of the object in ``inner``, once, including the Hugging Face model under a bridge."""
    # a bridge does not list the Hugging Face model among its modules
    waiting = [holder.inner, *([original] if (original := getattr(holder.inner, "original_model", None)) else [])]
    by_id: dict[int, Any] = {}
    while waiting:  # `Module.modules` yields through a generator per level, ten times as slow on a bridge
        module = waiting.pop()
        if id(module) not in by_id:
            by_id[id(module)] = module
            waiting += [child for child in module._modules.values() if child is not None]
    return list(by_id.values())


@contextmanager
def frozen(backend: Backend) -> Iterator[None]:
    """Turns off gradients of all parameters, and restores them afterwards; other threads wait."""
    with exclusive(backend):
        parameters = [parameter for parameter in backend.inner.parameters() if parameter.requires_grad]
        try:
            for parameter in parameters:
                parameter.requires_grad_(requires_grad=False)
            yield
        finally:
            for parameter in parameters:
                parameter.requires_grad_(requires_grad=True)


def existing_sites(backend: Backend, sites: Sequence[str | Site], layers: Sequence[int] | None = None) -> list[Site]:
    """Every whole site of these names and layers, each once.

    Args:
        backend: the model.
        sites: site names, which stand for all ``layers``, or single sites.
        layers: of the names; all by default.

    Raises:
        SiteError: a site that the model does not have.
    """
    chosen = range(backend.architecture().n_layers) if layers is None else layers
    whole = list(dict.fromkeys(site for name in sites for site in _of_layers(name, chosen)))
    for site in whole:
        backend.check(site)
    return whole


def _of_layers(name: str | Site, layers: Sequence[int]) -> list[Site]:
    if isinstance(name, Site):
        return [name.whole]
    return [Site(name, layer) for layer in layers] if site_name(name).has_layer else [Site(name)]


def check_exists(backend: Backend, site: Site) -> None:
    """Refuses a site outside the model, or one that models of its kind do not have.

    Raises:
        SiteError: says which layers, heads, neurons or sites there are.
    """
    architecture = backend.architecture()
    if site.layer is not None and not 0 <= site.layer < architecture.n_layers:
        raise SiteError(f"{site}: {out_of_range('layer', site.layer, architecture.n_layers)}")
    axis = site.row.head_axis
    if axis and site.head is not None and not 0 <= site.head < architecture.size(axis):
        kind = "key/value head" if axis == "kv_head" else "head"
        raise SiteError(f"{site}: {out_of_range(kind, site.head, architecture.size(axis))}")
    if site.neuron is not None and not 0 <= site.neuron < architecture.d_mlp:
        raise SiteError(f"{site}: {out_of_range('neuron', site.neuron, architecture.d_mlp)}")
    if architecture.attn_only and site.row.needs_mlp:
        raise SiteError(
            f"{architecture.family} has no site {site.name}: it is an attention-only model",
            allowed=[name for name, row in SITES.items() if not row.needs_mlp],
        )
    if architecture.n_experts and site.row.dense_mlp:
        raise SiteError(
            f"{architecture.family} has no site {site.name}: a router sends each token to some of "
            f"{architecture.n_experts} expert MLPs, so its neurons differ from token to token",
            fix="Use mlp_out, the sum of the experts' outputs",
        )
    if _is_absent(backend, architecture, site.name) or site.hook not in backend.hooks:
        reason = ": attention and MLP read the same residual stream" if site.row.serial_only else ""
        present = [name for name in SITES if not _is_absent(backend, architecture, name)]
        raise SiteError(f"{architecture.family} has no site {site.name}{reason}", allowed=present)


def _is_absent(backend: Backend, architecture: Architecture, name: str) -> bool:
    """Whether no layer has this site."""
    by_shape = (
        (SITES[name].serial_only and architecture.parallel)
        or (SITES[name].dense_mlp and architecture.n_experts > 0)
        or (name == "pos_embed" and architecture.positions in ("rotary", "alibi"))
    )
    return by_shape or SITES[name].hook.format(layer=0) not in backend.hooks


def read_architecture(cfg: Any, *, causal: bool) -> Architecture:
    """Sizes and block structure, from a TransformerLens configuration."""
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
        n_experts=count_experts(cfg),
    )


def count_experts(cfg: Any) -> int:
    """The number of experts in a configuration; 0 for a single MLP per block."""
    names = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    counts = [getattr(cfg, name, None) for name in names]
    return max((count for count in counts if isinstance(count, int) and count > 1), default=0)


def as_dtype(name: str | torch.dtype) -> torch.dtype:
    """The torch dtype of a name (``float32``, ``bfloat16``).

    Raises:
        ModelSupportError: not a floating-point dtype.
    """
    dtype = getattr(torch, name, None) if isinstance(name, str) else name
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ModelSupportError(
            f"dtype={name!r} is not a floating-point dtype", allowed="float32, float64, bfloat16, float16"
        )
    return dtype


def are_plain(inner: Any) -> bool:
    """Whether every weight is an ordinary floating-point tensor, all on one device."""
    parameters = list(inner.parameters())
    return len({parameter.device for parameter in parameters}) == 1 and all(
        type(parameter) is torch.nn.Parameter and parameter.is_floating_point() for parameter in parameters
    )
