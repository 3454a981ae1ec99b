"""A recorded pass, and passes whose rows start from the record.

`record` runs prompts once and stores the residual stream before every block and the keys and values of every layer.
`resume` then runs any number of rows that each differ from their prompt from some layer and position on.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from jaxtyping import Int
from torch import Tensor

from mechxai.core.shapes import Tokens
from mechxai.core.site import Site
from mechxai.model.backends.attach import Hooks, embedded
from mechxai.model.backends.base import UNEMBED_HOOK
from mechxai.model.backends.capture import AllCached
from mechxai.model.backends.hooks import HookFunction, gathered
from mechxai.model.backends.limits import check_tokens
from mechxai.model.backends.prefix import JoiningRows, KeysValues
from mechxai.model.hooked_model import HookedModel


@dataclass(frozen=True)
class Recording:
    """Activations of a run from which other rows can start.

    Attributes:
        tokens: of the prompts, ``[prompt, pos]``.
        residuals: input of every block and, last, the output of the last block, ``[prompt, pos, d_model]``.
        kept: keys and values of every layer.
        final: input of the unembedding at the chosen positions, ``[prompt, k, d_model]``.
        acts: whole site -> activation, for the chosen sites.
    """

    tokens: Tokens
    residuals: Sequence[Tensor]
    kept: KeysValues
    final: Tensor
    acts: Mapping[Site, Tensor] = field(default_factory=dict)

    def rows(self, chosen: slice) -> "Recording":
        """The record of some prompts."""
        return Recording(
            self.tokens[chosen],
            [residual[chosen] for residual in self.residuals],
            self.kept.rows(chosen),
            self.final[chosen],
            {site: value[chosen] for site, value in self.acts.items()},
        )


def joined(parts: Sequence[Recording]) -> Recording:
    """The records of several groups of prompts as one."""
    first = parts[0]
    if len(parts) == 1:
        return first
    kept = KeysValues(
        [torch.cat(layers) for layers in zip(*(part.kept.keys for part in parts), strict=True)],
        [torch.cat(layers) for layers in zip(*(part.kept.values for part in parts), strict=True)],
    )
    return Recording(
        torch.cat([part.tokens for part in parts]),
        [torch.cat(layers) for layers in zip(*(part.residuals for part in parts), strict=True)],
        kept,
        torch.cat([part.final for part in parts]),
        {site: torch.cat([part.acts[site] for part in parts]) for site in first.acts},
    )


def record(
    model: HookedModel,
    tokens: Tokens,
    *,
    hooks: Hooks,
    sites: Sequence[Site] = (),
    at: Int[Tensor, "prompt k"] | None = None,
) -> Recording:
    """Runs prompts once, without the unembedding. Causal models only. Cost: one forward pass.

    Args:
        model: the model.
        tokens: ``[prompt, pos]``, padded on the right.
        hooks: edits of the run.
        sites: whole sites whose activations are stored as well.
        at: positions of the unembedding's input to store; all when None.
    """
    check_tokens(tokens, model.architecture, model.name)
    n_layers = model.architecture.n_layers
    residuals: dict[int, Tensor] = {}
    acts: dict[Site, Tensor] = {}
    final: list[Tensor] = []
    storing: dict[str, list[HookFunction]] = {}
    for layer in range(n_layers):
        storing[Site("resid_pre", layer).hook] = [_into(residuals, layer)]
    storing[Site("resid_post", n_layers - 1).hook] = [_into(residuals, n_layers)]
    for site in sites:
        storing.setdefault(site.hook, []).append(_into(acts, site))
    kept = KeysValues()
    tokens = tokens.to(model.device)
    tables = (hooks, storing, {UNEMBED_HOOK: [_stop(final, at)]})
    with model.attached(tables, sites), torch.no_grad(), suppress(AllCached):
        model.backend.record(tokens, kept)
    return Recording(tokens, [residuals[layer] for layer in range(n_layers + 1)], kept, final[0], acts)


def resume(
    model: HookedModel,
    rows: JoiningRows,
    *,
    before: Hooks,
    after: Hooks,
    sites: Sequence[Site] = (),
    at: Int[Tensor, "row k"] | None = None,
) -> Tensor:
    """The input of the unembedding, ``[row, k, d_model]``, of rows that start from a record.

    Args:
        model: the model.
        rows: the rows, in the order in which they join.
        before: functions that see the rows of a layer before others join.
        after: functions that see the rows after others have joined.
        sites: sites behind the functions, so that TransformerLens computes them.
        at: positions wanted, counted from ``rows.start``; all when None.

    Cost: the share of one forward pass per row that lies at and after its layer and ``rows.start``.
    """
    n_layers = model.architecture.n_layers
    joining: dict[str, list[HookFunction]] = {}
    begins_with_rows = not model.backend.masks_rows  # else the pass begins with a placeholder
    for number, (layer, _) in enumerate(rows.joins):
        if number or not begins_with_rows:
            site = Site("resid_pre", layer) if layer < n_layers else Site("resid_post", n_layers - 1)
            joining[site.hook] = [_joining(rows, number)]
    final: list[Tensor] = []
    tables = (before, joining, after, {UNEMBED_HOOK: [_stop(final, at)]})
    with model.attached(tables, sites), torch.no_grad(), suppress(AllCached):
        model.backend.resume(rows)
    return final[0]


def residuals_before(
    model: HookedModel, tokens: Tokens, hooks: Hooks, *, keep: Mapping[Site, dict[Site, Tensor]] = MappingProxyType({})
) -> Tensor:
    """The residual stream before block 0, ``[row, pos, d_model]``; activations at sites before it go into ``keep``.

    Cost: the embedding of the rows.
    """
    storing: Hooks = {site.hook: [_into(store, site)] for site, store in keep.items()}
    return embedded(model.backend, tokens, (hooks, storing))


def _into(store: dict, key: object) -> HookFunction:
    def function(activation: Tensor) -> None:
        store[key] = activation.detach()

    return function


def _stop(final: list[Tensor], at: Tensor | None) -> HookFunction:
    def function(residual: Tensor) -> None:
        final.append(residual if at is None else gathered(residual, at))
        raise AllCached

    return function


def _joining(rows: JoiningRows, number: int) -> HookFunction:
    def function(residual: Tensor) -> Tensor:
        new = rows.joining(number)
        return torch.cat([residual, new]) if number else new

    return function
