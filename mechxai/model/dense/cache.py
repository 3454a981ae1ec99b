"""A cache filled: a batch run in parts, through plain blocks where they are proven to be the model, else with hooks."""

from collections.abc import Callable
from contextlib import suppress

import torch

from mechxai.core.shapes import PromptInts, Tokens
from mechxai.model.backends.attach import Hooks, attached, embedded, row_mask
from mechxai.model.backends.base import Backend, modules
from mechxai.model.backends.capture import AllCached, Keeper
from mechxai.model.backends.hooks import foreign_hooks
from mechxai.model.dense.blocks import DenseModel
from mechxai.model.dense.buffers import Buffers
from mechxai.model.dense.check import dense_blocks, equivalence_check
from mechxai.model.dense.run import PLAIN_SITES, pass_dense

_PART = {"cpu": 512}  # tokens run together; more cost memory and save hardly any time
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
    """Runs a batch, a few prompts at a time, as far as the keeper wants. Cost: one forward pass at most.

    Args:
        keeper: takes what it wants.
        backend: the model.
        tokens: ``[batch, pos]``.
        lengths: real tokens per row.
        hooked: through the model's own modules whatever else there is.
        edits: some rows -> functions that change their activations before they are kept; then always so.
    """
    plain = None if hooked or edits is not None else _trusted(keeper, backend, tokens.shape[1])
    run = _hooked(keeper, backend) if plain is None else _plain(keeper, backend, plain)
    with torch.no_grad():
        for rows in parts(len(tokens), tokens.shape[1], tokens.device):
            keeper.begin(rows)
            with suppress(AllCached):
                run(tokens[rows], None if lengths is None else lengths[rows], {} if edits is None else edits(rows))


def parts(n_prompts: int, n_pos: int, device: torch.device) -> list[slice]:
    """Runs of prompts of about equal size; one, be it empty, at least."""
    most = max(1, _PART.get(device.type, _PART_ELSEWHERE) // max(1, n_pos))
    n_parts = max(1, -(-n_prompts // most))
    size = max(1, -(-n_prompts // n_parts))
    return [slice(first, first + size) for first in range(0, max(1, n_prompts), size)]


def _trusted(keeper: Keeper, backend: Backend, n_pos: int) -> DenseModel | None:
    """Plain blocks that give what is wanted as the model does; None as well where somebody's functions stand in it."""
    plain = dense_blocks(backend)
    wanted = {site.name for site in keeper.sites if site.row.entry != "embed"}
    if plain is None or not wanted <= set(PLAIN_SITES) or n_pos > (plain.longest or n_pos):
        return None
    return plain if not foreign_hooks(modules(backend)) and wanted <= equivalence_check(backend).sites else None


def _plain(keeper: Keeper, backend: Backend, plain: DenseModel) -> Run:
    buffers = Buffers() if next(iter(backend.inner.parameters())).device.type == "cpu" else None
    before = [site for site in keeper.sites if site.row.entry == "embed"]
    wanted = frozenset(keeper.sites)

    def run(tokens: Tokens, lengths: PromptInts | None, edits: Hooks) -> None:
        del lengths, edits  # there are none; rows are padded on the right, where causal attention never looks
        residual = embedded(backend, tokens, (keeper.hooks(before),))
        pass_dense(plain, residual, keeper.keep, wanted=wanted, buffers=buffers)

    return run


def _hooked(keeper: Keeper, backend: Backend) -> Run:
    def run(tokens: Tokens, lengths: PromptInts | None, edits: Hooks) -> None:
        with attached(backend, (edits, keeper.hooks(keeper.sites)), keeper.sites):
            backend.run(tokens, row_mask(tokens, lengths))

    return run
