"""Filling a cache: a batch runs in parts, through dense blocks where they equal the model, else with hooks."""

from collections.abc import Callable
from contextlib import suppress

import torch

from mechxai.core.exclusive import exclusive
from mechxai.core.shapes import PromptInts, Tokens
from mechxai.model.backends.attach import Hooks, attached, embedded, row_mask
from mechxai.model.backends.base import Backend, modules
from mechxai.model.backends.capture import AllCached, Keeper
from mechxai.model.backends.hooks import foreign_hooks
from mechxai.model.dense.blocks import DenseModel
from mechxai.model.dense.buffers import Buffers
from mechxai.model.dense.check import equivalence_check
from mechxai.model.dense.run import DENSE_SITES, pass_dense

_PART = {"cpu": 512}  # tokens per part; more cost memory and save little time
_PART_ELSEWHERE = 16_384

Run = Callable[[Tokens, PromptInts | None, Hooks], object]


def fill(
    keeper: Keeper,
    backend: Backend,
    tokens: Tokens,
    *,
    lengths: PromptInts | None = None,
    hooked: bool = False,
    edits: Callable[[slice], Hooks] | None = None,
) -> None:
    """Runs a batch, a few prompts at a time, until the keeper has all its sites. Cost: at most one forward pass.

    Args:
        keeper: stores the activations.
        backend: the model.
        tokens: ``[batch, pos]``.
        lengths: real tokens per row.
        hooked: always run the model's own modules.
        edits: rows -> hook functions that edit their activations before they are stored; implies ``hooked``.
    """
    with exclusive(backend), torch.no_grad():
        dense = None if hooked or edits is not None else _trusted(keeper, backend, tokens.shape[1])
        run = _hooked_run(keeper, backend) if dense is None else _dense_run(keeper, backend, dense)
        for rows in parts(len(tokens), tokens.shape[1], tokens.device):
            keeper.begin(rows)
            with suppress(AllCached):
                run(tokens[rows], None if lengths is None else lengths[rows], {} if edits is None else edits(rows))


def parts(n_prompts: int, n_pos: int, device: torch.device) -> list[slice]:
    """Slices of prompts of about equal size; at least one, which may be empty."""
    n_most = max(1, _PART.get(device.type, _PART_ELSEWHERE) // max(1, n_pos))
    n_parts = max(1, -(-n_prompts // n_most))
    size = max(1, -(-n_prompts // n_parts))
    return [slice(first, first + size) for first in range(0, max(1, n_prompts), size)]


def _trusted(keeper: Keeper, backend: Backend, n_pos: int) -> DenseModel | None:
    """Dense blocks that compute the keeper's sites as the model does; None where the user has attached hooks."""
    if any(site.row.entry != "embed" and site.name not in DENSE_SITES for site in keeper.sites):
        return None
    check = equivalence_check(backend)
    if not check.covers(n_pos) or foreign_hooks(modules(backend)):
        return None
    return check.dense if all(check.computes(site) for site in keeper.sites) else None


def _dense_run(keeper: Keeper, backend: Backend, dense: DenseModel) -> Run:
    buffers = Buffers() if next(iter(backend.inner.parameters())).device.type == "cpu" else None
    before = [site for site in keeper.sites if site.row.entry == "embed"]
    wanted = frozenset(keeper.sites)

    def run(tokens: Tokens, lengths: PromptInts | None, edits: Hooks) -> None:
        del lengths, edits  # no edits here; padding is on the right, where causal attention never looks
        residual = embedded(backend, tokens, (keeper.hooks(before),))
        pass_dense(dense, residual, keeper.keep, wanted=wanted, buffers=buffers)

    return run


def _hooked_run(keeper: Keeper, backend: Backend) -> Run:
    def run(tokens: Tokens, lengths: PromptInts | None, edits: Hooks) -> None:
        with attached(backend, (edits, keeper.hooks(keeper.sites)), keeper.sites):
            backend.run(tokens, row_mask(tokens, lengths))

    return run
