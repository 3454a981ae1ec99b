"""Edits in rows of different prompts that run only some of their positions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention
from mechxai.core.site import POSITION_AXES, Site
from mechxai.engine.sweep import Cell
from mechxai.model.backends.masking import AttentionMask

EditFunction = Callable[[Tensor], None]  # edits an activation in place
_HEADS = ("head", "kv_head")


@dataclass(frozen=True)
class RowEdit:
    """An intervention in one row.

    Attributes:
        row: number of the row.
        prompt: number of its prompt in the chunk.
        intervention: the intervention.
        pos: its position in this prompt, or None for all positions.
    """

    row: int
    prompt: int
    intervention: Intervention
    pos: int | None


@dataclass(frozen=True)
class Window:
    """The range of positions that rows run."""

    start: int
    stop: int

    def holds(self, pos: int | None) -> bool:
        """Whether the window contains a position; None stands for all positions."""
        return pos is None or self.start <= pos < self.stop


def edits_by_site(cells: Sequence[Cell], prompts: Sequence[int], batch: ContrastBatch) -> dict[Site, list[RowEdit]]:
    """Whole site -> its interventions in all rows; each row is a cell on a prompt."""
    edits: dict[Site, list[RowEdit]] = {}
    positions: dict[int | str, list[int | None]] = {}
    for row, (cell, prompt) in enumerate(zip(cells, prompts, strict=True)):
        for intervention in cell:
            pos = intervention.site.pos
            if pos is not None and pos not in positions:
                at, valid = batch.layout.positions(pos)
                positions[pos] = [p if ok else None for p, ok in zip(at.tolist(), valid.tolist(), strict=True)]
            position = None if pos is None else positions[pos][prompt]
            if pos is None or position is not None:
                edits.setdefault(intervention.site.whole, []).append(RowEdit(row, prompt, intervention, position))
    return edits


def edit_functions(
    edits: Sequence[RowEdit], window: Window, mask: AttentionMask, *, device: torch.device
) -> list[EditFunction]:
    """Functions that make the edits of a whole site in order, in an activation ``[row, *axes]`` of the window.

    Edits that replace values are made together, whatever their positions; other edits are called once per intervention.
    Entries of scores and patterns that ``mask`` covers stay as they are.
    """
    functions: list[EditFunction] = []
    for turn in _turns([edit for edit in edits if window.holds(edit.pos)]):
        groups: dict[tuple[object, ...], list[RowEdit]] = {}
        for edit in turn:
            site = edit.intervention.site
            relative = isinstance(site.pos, str) or (site.pos or 0) < 0
            key = (id(edit.intervention.edit), edit.pos is None, relative, site.head is None, site.neuron is None)
            groups.setdefault(key, []).append(edit)
        for group in groups.values():
            values = group[0].intervention.edit.replacement(group[0].intervention.site)
            if values is not None:
                functions.append(_replacement(group, values, window, mask=mask, device=device))
                continue
            same: dict[Site, list[RowEdit]] = {}
            for edit in group:
                same.setdefault(edit.intervention.site, []).append(edit)
            functions += [_call(part, window, mask, device=device) for part in same.values()]
    return functions


def _turns(edits: Sequence[RowEdit]) -> list[list[RowEdit]]:
    """The first edit of every row, then the second of the rows that have two, and so on."""
    turns: list[list[RowEdit]] = []
    last_turn: dict[int, int] = {}
    for edit in edits:
        turn = last_turn[edit.row] = last_turn.get(edit.row, -1) + 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(edit)
    return turns


def _replacement(
    group: Sequence[RowEdit], values: Tensor, window: Window, *, mask: AttentionMask, device: torch.device
) -> EditFunction:
    """A function that copies the values of a group of edits into place, all at once."""

    def numbers(of: Callable[[RowEdit], int | None]) -> Tensor:
        return torch.tensor([of(edit) for edit in group], device=device)

    site = group[0].intervention.site
    rows, prompts = numbers(lambda edit: edit.row), numbers(lambda edit: edit.prompt)
    to_index: list[slice | Tensor] = [rows]
    from_index: list[slice | Tensor] = [prompts]
    for axis in site.row.axes:
        target = source = slice(None)
        if axis in POSITION_AXES and group[0].pos is None:
            source = slice(window.start, window.stop)
        elif axis in POSITION_AXES:
            source = numbers(lambda edit: edit.pos)
            target = source - window.start
        elif axis in _HEADS and site.head is not None:
            target = source = numbers(lambda edit: edit.intervention.site.head)
        elif axis == "d_mlp" and site.neuron is not None:
            target = source = numbers(lambda edit: edit.intervention.site.neuron)
        to_index.append(target)
        from_index.append(source)
    n_prompts = 1 + max(edit.prompt for edit in group)
    dest = _positions(group, window, device)
    broadcast = _broadcast(values.to(device), site, n_prompts=n_prompts, stop=window.stop)

    def function(activation: Tensor) -> None:
        new = broadcast(activation)[tuple(from_index)].to(activation.dtype)
        activation[tuple(to_index)] = mask.keep(activation[tuple(to_index)], new, site, dest=dest)

    return function


def _broadcast(values: Tensor, site: Site, *, n_prompts: int, stop: int) -> Callable[[Tensor], Tensor]:
    """A function that views values as ``[prompt, *axes]`` up to a position; the activation gives the other sizes."""

    def function(activation: Tensor) -> Tensor:
        positions = (*POSITION_AXES, "src_pos")
        # rows may read keys of positions that they no longer run, so the activation gives the size of this axis too
        sizes = [stop if axis in POSITION_AXES else activation.shape[1 + i] for i, axis in enumerate(site.row.axes)]
        view = values
        for back, (axis, size) in enumerate(zip(reversed(site.row.axes), reversed(sizes), strict=True), start=1):
            if axis in positions and view.ndim >= back and view.shape[-back] > size:
                view = view.narrow(-back, 0, size)
        n = view.shape[0] if view.ndim == 1 + len(sizes) and view.shape[0] > 1 else n_prompts
        return view.expand(n, *sizes)

    return function


def _call(group: Sequence[RowEdit], window: Window, mask: AttentionMask, *, device: torch.device) -> EditFunction:
    """A function that calls the edit of one intervention in the rows of a group."""
    site = group[0].intervention.site
    rows = torch.tensor([edit.row for edit in group], device=device)
    edit = group[0].intervention.edit.rows(torch.tensor([edit.prompt for edit in group]))
    dest = _positions(group, window, device)
    at = None if site.pos is None else dest - window.start
    index = (rows, *(at if at is not None and axis in POSITION_AXES else site.along(axis) for axis in site.row.axes))

    def function(activation: Tensor) -> None:
        before = activation[index]
        activation[index] = mask.keep(before, edit(before, site), site, dest=dest)

    return function


def _positions(group: Sequence[RowEdit], window: Window, device: torch.device) -> Tensor:
    """The position of each edit of a group, ``[row]``; those of the window, ``[pos]``, where edits take them all."""
    if group[0].pos is None:
        return torch.arange(window.start, window.stop, device=device)
    return torch.tensor([edit.pos for edit in group], device=device)
