"""Edits made in rows of different prompts, each running only some of its positions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention
from mechxai.core.site import POSITION_AXES, Site
from mechxai.engine.sweep import Cell

Step = Callable[[Tensor], None]  # writes into the activation it is given
_HEADS = ("head", "kv_head")


@dataclass(frozen=True)
class RowEdit:
    """One intervention in one row.

    Attributes:
        row: the row.
        prompt: its prompt, counted in the chunk.
        one: the intervention.
        pos: the position it names in this prompt, or None for all.
    """

    row: int
    prompt: int
    one: Intervention
    pos: int | None


@dataclass(frozen=True)
class Window:
    """The positions that rows run."""

    start: int
    stop: int

    def holds(self, pos: int | None) -> bool:
        """Whether a position is among them."""
        return pos is None or self.start <= pos < self.stop


def placed(cells: Sequence[Cell], prompts: Sequence[int], batch: ContrastBatch) -> dict[Site, list[RowEdit]]:
    """Whole site -> the interventions that are made there; one cell and one prompt per row."""
    found: dict[Site, list[RowEdit]] = {}
    positions: dict[int | str, list[int | None]] = {}
    for row, (cell, prompt) in enumerate(zip(cells, prompts, strict=True)):
        for one in cell:
            pos = one.site.pos
            if pos is not None and pos not in positions:
                at, valid = batch.layout.positions(pos)
                positions[pos] = [p if ok else None for p, ok in zip(at.tolist(), valid.tolist(), strict=True)]
            here = None if pos is None else positions[pos][prompt]
            if pos is None or here is not None:
                found.setdefault(one.site.whole, []).append(RowEdit(row, prompt, one, here))
    return found


def steps(edits: Sequence[RowEdit], window: Window, *, device: torch.device) -> list[Step]:
    """What makes the edits of one whole site, in order, in an activation ``[row, *axes]`` of the window's positions.

    Edits that put values in place of what was there are made together, whatever their places; others are called, once
    per intervention.
    """
    made: list[Step] = []
    for several in _rounds([edit for edit in edits if window.holds(edit.pos)]):
        groups: dict[tuple[object, ...], list[RowEdit]] = {}
        for edit in several:
            named = edit.one.site
            relative = isinstance(named.pos, str) or (named.pos or 0) < 0
            key = (id(edit.one.edit), edit.pos is None, relative, named.head is None, named.neuron is None)
            groups.setdefault(key, []).append(edit)
        for group in groups.values():
            values = group[0].one.edit.replacement(group[0].one.site)
            if values is not None:
                made.append(_replacing(group, values, window, device=device))
                continue
            same: dict[Site, list[RowEdit]] = {}
            for edit in group:
                same.setdefault(edit.one.site, []).append(edit)
            made += [_calling(part, window, device=device) for part in same.values()]
    return made


def _rounds(edits: Sequence[RowEdit]) -> list[list[RowEdit]]:
    """The first edit of every row, then the second of those that have one, and so on."""
    rounds: list[list[RowEdit]] = []
    seen: dict[int, int] = {}
    for edit in edits:
        turn = seen[edit.row] = seen.get(edit.row, -1) + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(edit)
    return rounds


def _replacing(group: Sequence[RowEdit], values: Tensor, window: Window, *, device: torch.device) -> Step:
    """Values put into all places of a group at once."""

    def numbers(of: Callable[[RowEdit], int | None]) -> Tensor:
        return torch.tensor([of(edit) for edit in group], device=device)

    site = group[0].one.site
    rows, prompts = numbers(lambda edit: edit.row), numbers(lambda edit: edit.prompt)
    into: list[slice | Tensor] = [rows]
    outof: list[slice | Tensor] = [prompts]
    for axis in site.row.axes:
        into_axis = outof_axis = slice(None)
        if axis in POSITION_AXES and group[0].pos is None:
            outof_axis = slice(window.start, window.stop)
        elif axis in POSITION_AXES:
            outof_axis = numbers(lambda edit: edit.pos)
            into_axis = outof_axis - window.start
        elif axis in _HEADS and site.head is not None:
            into_axis = outof_axis = numbers(lambda edit: edit.one.site.head)
        elif axis == "d_mlp" and site.neuron is not None:
            into_axis = outof_axis = numbers(lambda edit: edit.one.site.neuron)
        into.append(into_axis)
        outof.append(outof_axis)
    n_prompts = 1 + max(edit.prompt for edit in group)
    spread = _spread(values.to(device), site, n_prompts=n_prompts, stop=window.stop)

    def step(activation: Tensor) -> None:
        activation[tuple(into)] = spread(activation)[tuple(outof)].to(activation.dtype)

    return step


def _spread(values: Tensor, site: Site, *, n_prompts: int, stop: int) -> Callable[[Tensor], Tensor]:
    """Values in the shape ``[prompt, *axes]`` up to a position, as a view; the activation tells the other sizes."""

    def function(activation: Tensor) -> Tensor:
        positions = (*POSITION_AXES, "src_pos")
        # rows may read keys of positions that they do not run any more, so these the activation tells as well
        sizes = [stop if axis in POSITION_AXES else activation.shape[1 + i] for i, axis in enumerate(site.row.axes)]
        found = values
        for back, (axis, size) in enumerate(zip(reversed(site.row.axes), reversed(sizes), strict=True), start=1):
            if axis in positions and found.ndim >= back and found.shape[-back] > size:
                found = found.narrow(-back, 0, size)
        many = found.shape[0] if found.ndim == 1 + len(sizes) and found.shape[0] > 1 else n_prompts
        return found.expand(many, *sizes)

    return function


def _calling(group: Sequence[RowEdit], window: Window, *, device: torch.device) -> Step:
    """One intervention made in the rows of a group by calling its edit."""
    site = group[0].one.site
    rows = torch.tensor([edit.row for edit in group], device=device)
    edit = group[0].one.edit.rows(torch.tensor([edit.prompt for edit in group]))
    at = None if site.pos is None else torch.tensor([edit.pos for edit in group], device=device) - window.start
    index = (rows, *(at if at is not None and axis in POSITION_AXES else site.along(axis) for axis in site.row.axes))

    def step(activation: Tensor) -> None:
        activation[index] = edit(activation[index], site)

    return step
