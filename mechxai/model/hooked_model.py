"""The only door to a model: tokens, logits, activations, edits, gradients. What is opened is closed again."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from mechxai.core.activations import Activations
from mechxai.core.architecture import Architecture
from mechxai.core.batch import Answer, ContrastBatch, Layout
from mechxai.core.edit import Intervention
from mechxai.core.shapes import PromptInts, RowLogits, Tokens
from mechxai.core.site import Site
from mechxai.core.site_table import site_name
from mechxai.model.backends.attach import Hooks, attached, row_mask
from mechxai.model.backends.base import UNEMBED_HOOK, Backend, as_dtype, frozen
from mechxai.model.backends.capture import Keeper
from mechxai.model.backends.editing import run_hooks
from mechxai.model.backends.hooks import HookFunction, gathered
from mechxai.model.backends.limits import cache_bytes, check_space, check_tokens, inside
from mechxai.model.dense.cache import fill
from mechxai.model.text import TextCodec


@dataclass(frozen=True, eq=False)
class HookedModel:
    """A TransformerLens model and what is needed to ask it anything.

    Make one with `mechxai.load` or `mechxai.wrap`. Tokens are ``[batch, pos]``; rows of different length are padded on
    the right and described by ``lengths`` (a `ContrastBatch` is always so).

    Attributes:
        name: zoo name, Hugging Face id, folder name, or what `wrap` was told.
        backend: the wrapped object behind one interface; ``model.inner`` is the object itself.
        processing: ``folded`` (LayerNorm folded in, weights centred) or ``raw``.
        dtype: of the weights.
        device: of the weights.
        weight_hash: of the weights as loaded, before processing.
        card: for a bundled model, its card; else empty.
    """

    name: str
    backend: Backend
    text: TextCodec
    processing: str
    dtype: torch.dtype
    device: torch.device
    weight_hash: str
    revision: str | None = None
    card: Mapping[str, Any] = field(default_factory=dict)

    @property
    def inner(self) -> Any:
        """The wrapped TransformerLens object."""
        return self.backend.inner

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer, or None."""
        return self.text.tokenizer

    @cached_property
    def architecture(self) -> Architecture:
        """Sizes and block structure."""
        return self.backend.architecture()

    def optimize_layout(self) -> None:
        """Weights in the memory layout that their products want; done once, values and shapes stay what they are."""
        if not self.__dict__.get("_laid_out"):
            self.backend.optimize_layout()
            self.__dict__["_laid_out"] = True

    def info(self) -> dict[str, object]:
        """What a result records of its model."""
        return {
            "name": self.name,
            "backend": self.backend.name,
            "processing": self.processing,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": str(self.device),
            "weight_hash": self.weight_hash,
            "revision": self.revision,
            "architecture": self.architecture.as_dict(),
        }

    def __repr__(self) -> str:
        a = self.architecture
        shape = f"{a.n_layers} layers, {a.n_heads} heads, d_model {a.d_model}"
        loaded = f"{self.backend.name}, {self.processing}, {self.dtype}, {self.device}"
        return f"HookedModel({self.name}: {a.family}, {shape}, {loaded})"

    # Text ------------------------------------------------------------------------------------------------------------

    def tokens(self, prompts: str | Sequence[str]) -> tuple[Tokens, PromptInts]:
        """Tokens ``[batch, pos]`` padded on the right, and lengths ``[batch]``, of one or more prompts."""
        tokens, lengths = self.text.batch([prompts] if isinstance(prompts, str) else prompts)
        return tokens.to(self.device), lengths.to(self.device)

    def contrast(  # noqa: PLR0917 - the order of `ContrastBatch.from_prompts`
        self,
        clean: Sequence[str],
        corrupted: Sequence[str],
        answers: Sequence[Answer | Sequence[Answer]],
        wrong: Sequence[Answer | Sequence[Answer]],
        *,
        roles: Sequence[Mapping[str, tuple[int, int]]] | None = None,
    ) -> ContrastBatch:
        """The batch of these texts; see `ContrastBatch.from_prompts`."""
        batch = self.text.contrast(clean, corrupted, answers, wrong, roles=roles)
        batch.check_vocabulary(self.architecture.d_vocab)
        return batch.to(self.device)

    # Forward ---------------------------------------------------------------------------------------------------------

    def forward(
        self,
        tokens: Tokens,
        *,
        lengths: PromptInts | None = None,
        hooks: Hooks | None = None,
        at: Int[Tensor, "rows k"] | None = None,
        sites: Sequence[Site] = (),
    ) -> RowLogits:
        """Logits of one pass, with functions attached to hook points; the engine's way in.

        Gradients are as the caller set them.

        Args:
            tokens: ``[batch, pos]``.
            lengths: real tokens per row; needed by bidirectional models only.
            hooks: TransformerLens hook name -> functions, run in order. A function may add rows to the batch.
            at: positions whose logits are wanted, for every row that reaches the end, ``[rows, k]``; all when absent.
            sites: sites behind the hooks, so that TransformerLens computes them.

        Cost: one forward pass.
        """
        check_tokens(tokens, self.architecture, self.name)
        end: dict[str, list[HookFunction]] = {} if at is None else {UNEMBED_HOOK: [lambda x: gathered(x, at)]}
        tokens = tokens.to(self.device)
        with self.attached((hooks or {}, end), sites):
            return self.backend.run(tokens, row_mask(tokens, lengths))

    def attached(self, hooks: Sequence[Hooks], sites: Sequence[Site] = ()) -> AbstractContextManager[None]:
        """Functions attached to hook points, the tables one after the other; and the model in evaluation mode."""
        return attached(self.backend, hooks, sites)

    def logits(
        self,
        tokens: Tokens,
        *,
        lengths: PromptInts | None = None,
        at: Int[Tensor, "batch k"] | None = None,
        interventions: Sequence[Intervention] = (),
        layout: Layout | None = None,
    ) -> RowLogits:
        """Logits ``[batch, pos, d_vocab]`` (or at the positions ``at``), with edits in place.

        Args:
            tokens: ``[batch, pos]``, padded on the right.
            lengths: real tokens per row; all by default.
            at: positions wanted per row, ``[batch, k]``.
            interventions: edits to make on the way.
            layout: roles, for edits whose position is a role; implies ``lengths``.

        Raises:
            SiteError: an intervention on a site the model does not have.
            ModelSupportError: an intervention that would have no effect on this backend.

        Cost: one forward pass.
        """
        layout = layout or _layout(tokens, lengths)
        self._check(interventions)
        hooks = run_hooks(interventions, layout)
        sites = [intervention.site for intervention in interventions]
        with torch.no_grad():
            return self.forward(tokens, lengths=layout.lengths, hooks=hooks, at=at, sites=sites)

    def _check(self, interventions: Sequence[Intervention]) -> None:
        for one in interventions:
            self.backend.check(one.site, editing=True)

    # Activations -----------------------------------------------------------------------------------------------------

    def wanted(self, sites: Sequence[str | Site], layers: Sequence[int] | None = None) -> list[Site]:
        """Every whole site of these names and layers, and those given as they are, checked against the model."""
        chosen = range(self.architecture.n_layers) if layers is None else layers
        named = [site for name in sites for site in _whole(name, chosen)]
        found = list(dict.fromkeys(named))  # a site may have been named twice, by different names
        for site in found:
            self.backend.check(site)
        return found

    def cache_bytes(self, shape: tuple[int, int], sites: Sequence[Site], dtype: torch.dtype | None = None) -> int:
        """Bytes that `cache` would hold for ``(batch, pos)`` tokens, before any run."""
        return cache_bytes(self.architecture, shape, sites, dtype=dtype or self.dtype)

    def cache(  # noqa: PLR0913, PLR0917 - the public contract's form
        self,
        tokens: Tokens,
        sites: Sequence[str | Site],
        layers: Sequence[int] | None = None,
        pos: Sequence[int] | None = None,
        *,
        lengths: PromptInts | None = None,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = None,
        hooked: bool = False,
        interventions: Sequence[Intervention] = (),
        layout: Layout | None = None,
    ) -> Activations:
        """Activations at chosen sites, layers and positions.

        Args:
            tokens: ``[batch, pos]``, padded on the right.
            sites: site names, or single sites (``Site("resid_post", 11)``).
            layers: of the names; all by default.
            pos: positions to keep, negative from the end of the padded row; all by default.
            lengths: real tokens per row.
            dtype: to store in; the model's by default.
            device: to store on; the model's by default.
            hooked: read at hook points whatever else is known of the model, as an oracle does; else plain blocks may
                run in its stead where they are proven to give the same.
            interventions: edits made on the way, before an activation is kept.
            layout: roles, for edits whose position is a role; implies ``lengths``.

        Raises:
            SiteError: a site the model does not have.
            ModelSupportError: an intervention that would have no effect on this backend.
            NoSpaceError: more bytes than are free; says how many.

        Cost: one forward pass up to the last site, a few prompts at a time; holds `cache_bytes`. The layers of a site
        lie together in memory, so ``acts.stack(name)`` copies nothing.
        """
        chosen = self.wanted(sites, layers)
        kept = None if pos is None else tuple(inside(position, tokens.shape[1]) for position in pos)
        place = torch.device(self.device if device is None else device)
        keeper = Keeper(chosen, kept, self.dtype if dtype is None else as_dtype(dtype), place, len(tokens))
        shape = (len(tokens), len(kept) if kept else tokens.shape[1])
        what = f"{len(chosen)} activations of {shape[0]} x {shape[1]} tokens"
        check_space(self.cache_bytes(shape, chosen, keeper.dtype), what, place)
        check_tokens(tokens, self.architecture, self.name)
        layout = layout or _layout(tokens, lengths)
        self._check(interventions)
        edits = (lambda rows: run_hooks(interventions, layout, rows)) if interventions else None
        fill(keeper, self.backend, tokens.to(self.device), lengths=layout.lengths, hooked=hooked, edits=edits)
        return Activations({site: keeper.values[site] for site in chosen}, layout, kept)

    def gradients(
        self,
        tokens: Tokens,
        sites: Sequence[Site],
        score: Callable[[Tensor], Tensor],
        *,
        lengths: PromptInts | None = None,
    ) -> tuple[Activations, Activations]:
        """Activations at whole sites, and the gradient of ``score(logits)`` (a scalar) there.

        Cost: one forward and one backward pass; parameters get no gradient.
        """
        for site in sites:
            self.backend.check(site.whole)
        held: dict[Site, Tensor] = {}

        def root(activation: Tensor) -> Tensor:
            return activation if activation.requires_grad else activation.detach().requires_grad_()

        def keep(site: Site) -> HookFunction:
            def function(activation: Tensor) -> Tensor:
                held[site.whole] = root(activation)
                return held[site.whole]

            return function

        # what is reached only in place must stay the tensor it is, so there gradients begin at the embedding
        in_place = any(site.name in self.backend.in_place for site in sites)
        hooks: dict[str, list[HookFunction]] = {Site("embed").hook: [root]} if in_place else {}
        for site in sites:
            hooks.setdefault(site.hook, []).append(keep(site))
        with frozen(self.backend), torch.enable_grad():
            value = score(self.forward(tokens, lengths=lengths, hooks=hooks, sites=sites))
            grads = torch.autograd.grad(value, list(held.values()))
        layout = _layout(tokens, lengths)
        return (
            Activations({site: value.detach() for site, value in held.items()}, layout),
            Activations(dict(zip(held, grads, strict=True)), layout),
        )


def _whole(name: str | Site, layers: Sequence[int]) -> list[Site]:
    if isinstance(name, Site):
        return [name.whole]
    return [Site(name, layer) for layer in layers] if site_name(name).has_layer else [Site(name)]


def _layout(tokens: Tokens, lengths: PromptInts | None) -> Layout:
    """The layout of rows without roles; all their tokens are real when no lengths are given."""
    return Layout(tokens.new_full((len(tokens),), tokens.shape[1]) if lengths is None else lengths)
