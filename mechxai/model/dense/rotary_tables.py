"""Rotary tables of a model, from its own modules, as candidates for a block's rotation."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from mechxai.model.dense.parts import Rotary
from mechxai.model.dense.topology import close

Table = Callable[[int], tuple[Tensor, Tensor]]


def hooked_transformer_rotaries(inner: Any, attn: Any) -> list[Rotary | None]:
    """The rotation of a HookedTransformer's attention, or none."""
    if not isinstance(getattr(attn, "rotary_cos", None), Tensor):
        return [None]

    def table(n_pos: int) -> tuple[Tensor, Tensor]:
        if n_pos > len(attn.rotary_cos):
            attn._extend_rotary_embeddings(n_pos)  # as the forward pass does
        return attn.rotary_cos, attn.rotary_sin

    return [Rotary(table, bool(getattr(inner.cfg, "rotary_adjacent_pairs", False)))]


def bridge_rotaries(tables: list[Table], attn: Any, read: Any) -> list[Rotary | None]:
    """Candidates for the rotation of a Hugging Face attention module, the likeliest first, then none.

    Args:
        tables: of the model's rotary modules.
        attn: the attention module.
        read: the cosines and sines that it was called with; None without.
    """
    chosen = tables
    if isinstance(read, tuple) and len(read) == 2 and all(isinstance(part, Tensor) for part in read):
        cosines = read[0].reshape(-1, read[0].shape[-1])
        matching = [table for table in tables if close(table(len(cosines))[0].to(cosines.dtype), cosines)]
        chosen = matching[:1] or [_fixed(read)]
    buffer = getattr(attn, "embed_positions", None)
    if isinstance(buffer, Tensor):  # GPT-J
        chosen = [*chosen, _joined(buffer)]
    rotaries: list[Rotary | None] = []
    for table in chosen:
        rotaries += [Rotary(table, adjacent=False), Rotary(table, adjacent=True)]
        rotaries += [Rotary(_paired(table), adjacent=True), Rotary(_doubled(table), adjacent=False)]
    return [*rotaries, None]


def rotary_tables(inner: Any) -> list[Table]:
    """A function of the number of positions for every rotary module of a bridge, and every type of layer it knows."""
    model = inner.original_model
    parameter = next(iter(inner.parameters()))
    return [table for module in model.modules() for table in _of_module(module, parameter)]


def _of_module(module: Any, like: Tensor) -> Iterator[Table]:
    name = type(module).__name__
    if "Rotary" not in name or name.endswith("Bridge"):
        return
    types = [None, *dict.fromkeys(getattr(getattr(module, "config", None), "layer_types", None) or ())]
    for layer_type in types:
        settings = {} if layer_type is None else {"layer_type": layer_type}
        table = _memoised(module, like, settings)
        try:
            table(2)
        except (TypeError, ValueError, AttributeError, KeyError, IndexError, RuntimeError):
            continue  # this module is called in another way
        yield table


def _memoised(module: Any, like: Tensor, settings: dict[str, Any]) -> Table:
    tables: dict[int, tuple[Tensor, Tensor]] = {}

    def table(n_pos: int) -> tuple[Tensor, Tensor]:
        longest = max(tables, default=0)
        if longest < n_pos:
            with torch.no_grad():
                positions = torch.arange(n_pos, device=like.device)[None]
                cos, sin = module(torch.zeros(1, dtype=like.dtype, device=like.device), positions, **settings)
            tables.clear()
            tables[n_pos] = (cos.reshape(-1, cos.shape[-1]), sin.reshape(-1, sin.shape[-1]))
            longest = n_pos
        return tables[longest]

    return table


def _fixed(parts: tuple[Tensor, Tensor]) -> Table:
    """The table that attention was called with, for as many positions."""
    cos, sin = (part.detach().reshape(-1, part.shape[-1]) for part in parts)

    def table(n_pos: int) -> tuple[Tensor, Tensor]:
        if n_pos > len(cos):
            raise ValueError(f"the rotary table is known for {len(cos)} positions, not {n_pos}")
        return cos, sin

    return table


def _joined(buffer: Tensor) -> Table:
    """Sines, then cosines, of each pair."""
    sin, cos = (part.repeat_interleave(2, -1) for part in buffer.detach().chunk(2, -1))
    return lambda n_pos: (cos[:n_pos], sin[:n_pos])


def _paired(table: Table) -> Table:
    """A table whose halves are equal, for pairs of neighbours."""

    def paired(n_pos: int) -> tuple[Tensor, Tensor]:
        cos, sin = (part[..., : part.shape[-1] // 2].repeat_interleave(2, -1) for part in table(n_pos))
        return cos, sin

    return paired


def _doubled(table: Table) -> Table:
    """A table with an entry per pair (GPT-OSS), for halves."""

    def doubled(n_pos: int) -> tuple[Tensor, Tensor]:
        cos, sin = (torch.cat([part, part], -1) for part in table(n_pos))
        return cos, sin

    return doubled
