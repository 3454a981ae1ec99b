"""`HookedModel`: logits, activations, edits, gradients and continuations of a language model."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from mechxai.core.activations import Activations
from mechxai.core.alignment import Integers
from mechxai.core.batch import ContrastBatch, Layout
from mechxai.core.edit import Intervention
from mechxai.core.shapes import PromptInts, RowLogits, Tokens
from mechxai.core.site import Site
from mechxai.model.backends.attach import Hooks, attached, row_mask
from mechxai.model.backends.base import UNEMBED_HOOK, Backend, Processing, as_dtype, existing_sites
from mechxai.model.backends.capture import Keeper, gradients_at
from mechxai.model.backends.editing import run_hooks
from mechxai.model.backends.hooks import HookFunction, gathered
from mechxai.model.backends.limits import cache_bytes, check_space, check_tokens, inside
from mechxai.model.backends.masking import attention_mask_of
from mechxai.model.conversion.comparison import Comparison
from mechxai.model.dense.cache import fill
from mechxai.model.generation.generate import Generates
from mechxai.model.identified import Identified
from mechxai.model.prompt_inputs import lengths_of, positions_of, texts_or_tokens
from mechxai.model.text import Column, Prompts, TextCodec


@dataclass(frozen=True, eq=False, repr=False)
class HookedModel(Identified, Generates):
    """A language model with hooks: its logits, its activations, edits of both, and gradients.

    Make one with `mechxai.load` or `mechxai.wrap`. Prompts are a text, a list of texts, or token ids ``[batch, pos]``.
    Texts of different length are padded on the right; every real position has the numbers it has without padding. With
    token ids, ``lengths`` gives the real tokens per row. After any call, an exception included, no hook is left and
    flags and grad mode are as before.

    >>> model = mx.load("zoo/ioi")
    >>> model("When Mary and John went").shape        # [batch, pos, d_vocab]
    >>> model.cache("When Mary and John went", ["resid_post"])["resid_post", 0].shape

    Attributes:
        name: zoo name, Hugging Face id, folder name, or the name given to `mechxai.wrap`.
        backend: one interface to both TransformerLens objects; ``model.inner`` is the object itself.
        text: the tokenizer and the model's conventions with it.
        processing: ``folded`` (LayerNorm folded in, weights centred) or ``raw``.
        dtype: of the weights.
        device: of the weights.
        loaded_hash: hash of the weights as loaded, before processing.
        revision: of a Hugging Face id.
        card: of a bundled model; empty for others.
        comparison: with Hugging Face's own model while loading; None where there is none to compare with (`wrap`,
            bundled models without a Hugging Face class).
    """

    name: str
    backend: Backend
    text: TextCodec
    processing: Processing
    dtype: torch.dtype
    device: torch.device
    loaded_hash: str
    revision: str | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    comparison: Comparison | None = None

    @property
    def inner(self) -> Any:
        """The wrapped ``HookedTransformer`` or ``TransformerBridge``."""
        return self.backend.inner

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer, or None."""
        return self.text.tokenizer

    def optimize_layout(self) -> None:
        """Gives weights that `mechxai.load` made the memory layout that products read fastest; values stay the same."""
        self.backend.optimize_layout()

    # Text ------------------------------------------------------------------------------------------------------------

    def tokens(self, prompts: Prompts) -> tuple[Tokens, PromptInts]:
        """Token ids ``[batch, pos]`` of one or more texts, padded on the right, and their lengths ``[batch]``."""
        tokens, lengths = self.text.batch(prompts)
        return tokens.to(self.device), lengths.to(self.device)

    def contrast(  # noqa: PLR0917 - the order of `ContrastBatch.from_prompts`
        self,
        clean: Column,
        corrupted: Column,
        answers: Column,
        wrong: Column,
        *,
        roles: Sequence[Mapping[str, tuple[int, int]]] | None = None,
    ) -> ContrastBatch:
        """The `ContrastBatch` of clean and corrupted texts; see `ContrastBatch.from_prompts`."""
        batch = self.text.contrast(clean, corrupted, answers, wrong, roles=roles).to(self.device)
        batch.check_vocabulary(self.architecture.d_vocab)
        return batch

    def _encoded(self, prompts: Prompts, lengths: Integers | None) -> tuple[Tokens, PromptInts | None]:
        """Tokens and lengths of prompts; token ids stay as they are."""
        prompts = texts_or_tokens(prompts)
        return (prompts, lengths_of(lengths, prompts)) if isinstance(prompts, Tensor) else self.tokens(prompts)

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
        """Logits of one pass with functions attached to hook points; `logits` is the method for everyday use.

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
        if self.comparison is not None:
            self.comparison.warn_beyond(tokens.shape[1], self.name)
        last: dict[str, list[HookFunction]] = {} if at is None else {UNEMBED_HOOK: [lambda x: gathered(x, at)]}
        tokens = tokens.to(self.device)
        with self.attached((hooks or {}, last), sites):
            return self.backend.run(tokens, row_mask(tokens, lengths))

    def attached(self, hooks: Sequence[Hooks], sites: Sequence[Site] = ()) -> AbstractContextManager[None]:
        """A ``with`` block in which functions stand at hook points and the model is in evaluation mode."""
        return attached(self.backend, hooks, sites)

    def __call__(self, prompts: Prompts, *, lengths: Integers | None = None) -> RowLogits:
        """Logits ``[batch, pos, d_vocab]`` of prompts; see `logits`. Cost: one forward pass."""
        return self.logits(prompts, lengths=lengths)

    def logits(
        self,
        prompts: Prompts,
        *,
        lengths: Integers | None = None,
        at: Integers | None = None,
        interventions: Sequence[Intervention] = (),
        layout: Layout | None = None,
    ) -> RowLogits:
        """Logits ``[batch, pos, d_vocab]`` (or at the positions ``at``), with edits in place.

        Args:
            prompts: a text, texts, or token ids ``[batch, pos]`` padded on the right.
            lengths: real tokens per row of token ids; all by default.
            at: positions wanted per row, ``[batch, k]``.
            interventions: edits made during the pass.
            layout: roles, for edits whose position is a role; implies ``lengths``.

        Raises:
            SiteError: an intervention on a site that the model does not have.
            ModelSupportError: an intervention without effect on this backend, or texts for a model without a tokenizer.

        Cost: one forward pass.
        """
        tokens, lengths = self._encoded(prompts, lengths)
        layout = layout or _layout(tokens, lengths)
        self._check(interventions)
        hooks = run_hooks(interventions, layout, mask=attention_mask_of(self.backend))
        sites = [intervention.site for intervention in interventions]
        with torch.no_grad():
            return self.forward(tokens, lengths=layout.lengths, hooks=hooks, at=positions_of(at, tokens), sites=sites)

    def _check(self, interventions: Sequence[Intervention]) -> None:
        for intervention in interventions:
            self.backend.check(intervention.site, editing=True)

    # Activations -----------------------------------------------------------------------------------------------------

    def wanted(self, sites: Sequence[str | Site], layers: Sequence[int] | None = None) -> list[Site]:
        """Every whole site of these names and layers, each once, checked against the model."""
        return existing_sites(self.backend, sites, layers)

    def cache_bytes(self, shape: tuple[int, int], sites: Sequence[Site], dtype: torch.dtype | None = None) -> int:
        """Bytes that `cache` would hold for ``(batch, pos)`` tokens, before any run."""
        return cache_bytes(self.architecture, shape, sites, dtype=dtype or self.dtype)

    def cache(  # noqa: PLR0913, PLR0917 - the public contract's form
        self,
        prompts: Prompts,
        sites: Sequence[str | Site],
        layers: Sequence[int] | None = None,
        pos: Sequence[int] | None = None,
        *,
        lengths: Integers | None = None,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = None,
        hooked: bool = False,
        interventions: Sequence[Intervention] = (),
        layout: Layout | None = None,
    ) -> Activations:
        """Activations at chosen sites, layers and positions; ``acts["resid_post", 3]`` is one layer of a site.

        Args:
            prompts: a text, texts, or token ids ``[batch, pos]`` padded on the right.
            sites: site names, or single sites (``Site("resid_post", 11)``).
            layers: of the names; all by default.
            pos: positions to keep, negative from the end of the padded row; all by default.
            lengths: real tokens per row of token ids; all by default.
            dtype: to store in; the model's by default.
            device: to store on; the model's by default.
            hooked: always read at hook points, as a reference. By default dense blocks compute the activations where
                they are shown to give the model's own.
            interventions: edits made before an activation is stored.
            layout: roles, for edits whose position is a role; implies ``lengths``.

        Raises:
            SiteError: a site that the model does not have.
            ModelSupportError: an intervention without effect on this backend, or texts for a model without a tokenizer.
            NoSpaceError: more bytes than are free; says how many.

        Cost: one forward pass up to the last site, a few prompts at a time; holds `cache_bytes`. The layers of a site
        are one block of memory, so ``acts.stack(name)`` copies nothing.
        """
        tokens, lengths = self._encoded(prompts, lengths)
        chosen = self.wanted(sites, layers)
        positions = None if pos is None else tuple(inside(position, tokens.shape[1]) for position in pos)
        store = torch.device(self.device if device is None else device)
        keeper = Keeper(chosen, positions, self.dtype if dtype is None else as_dtype(dtype), store, len(tokens))
        shape = (len(tokens), len(positions) if positions else tokens.shape[1])
        need = self.cache_bytes(shape, chosen, keeper.dtype)
        check_space(need, f"{len(chosen)} activations of {shape[0]} x {shape[1]} tokens", store)
        check_tokens(tokens, self.architecture, self.name)
        layout = layout or _layout(tokens, lengths)
        self._check(interventions)
        mask = attention_mask_of(self.backend)
        edits = (lambda rows: run_hooks(interventions, layout, rows, mask=mask)) if interventions else None
        fill(keeper, self.backend, tokens.to(self.device), lengths=layout.lengths, hooked=hooked, edits=edits)
        return Activations({site: keeper.values[site] for site in chosen}, layout, positions)

    def gradients(
        self,
        prompts: Prompts,
        sites: Sequence[Site],
        score: Callable[[Tensor], Tensor],
        *,
        lengths: Integers | None = None,
    ) -> tuple[Activations, Activations]:
        """Activations at whole sites, and the gradients of ``score(logits)`` (a scalar) with respect to them.

        Cost: one forward and one backward pass; parameters get no gradient.
        """
        tokens, lengths = self._encoded(prompts, lengths)
        run = lambda hooks: score(self.forward(tokens, lengths=lengths, hooks=hooks, sites=sites))  # noqa: E731
        (values, gradients), layout = gradients_at(self.backend, sites, run), _layout(tokens, lengths)
        return Activations(values, layout), Activations(gradients, layout)


def _layout(tokens: Tokens, lengths: PromptInts | None) -> Layout:
    """The layout of rows without roles; all their tokens are real when no lengths are given."""
    return Layout(tokens.new_full((len(tokens),), tokens.shape[1]) if lengths is None else lengths)
