"""Rows of different lengths, stored flat position after position, and grouped by the positions they run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mechxai.core.site import Site
from mechxai.engine.affected_range import needs_all_positions
from mechxai.engine.chunk import Chunk
from mechxai.engine.row_edits import EditFunction, RowEdit, Window, edit_functions, edits_by_site
from mechxai.engine.row_joins import INPUT, Join, join_of
from mechxai.engine.waves import Wave
from mechxai.model.backends.masking import AttentionMask, attention_mask_of


@dataclass
class RowGroup:
    """Rows of some prompts, equally many of each, that run the same positions and join at the same places.

    Rows are ordered by turns: the first row of every prompt, then the second of every prompt, and so on.

    Attributes:
        prompts: numbers of the prompts in the chunk, ascending.
        window: the positions that run; shrinks to the answer position in the last layer.
        at: the answer position, if the rows can shrink to it.
        rows: numbers of the rows in the wave, turn by turn, in the order in which they join.
        joins: the place at which the rows of each turn join, ascending.
        mask: of the model's attention.
        edits: whole site -> edits, with the rows' numbers in the group.
        turns: number of turns that have joined.
    """

    prompts: list[int]
    window: Window
    at: int | None
    rows: list[int]
    joins: list[Join]
    mask: AttentionMask
    edits: dict[Site, list[RowEdit]] = field(default_factory=dict)
    turns: int = 0

    @property
    def present(self) -> int:
        """The number of rows that have joined."""
        return self.turns * len(self.prompts)

    @property
    def width(self) -> int:
        """The number of positions that each row runs."""
        return self.window.stop - self.window.start

    @property
    def size(self) -> int:
        """The number of positions of all rows that have joined."""
        return self.present * self.width

    def joining(self, layer: int, stage: int) -> list[tuple[Join, range]]:
        """The rows that join at a place; rows whose edit is made there at the same site come together."""
        joining, first, n = [], self.turns, len(self.prompts)
        while first < len(self.joins) and (self.joins[first].layer, self.joins[first].stage) == (layer, stage):
            last = first + self.joins[first:].count(self.joins[first])  # equal joins are adjacent
            joining.append((self.joins[first], range(first * n, last * n)))
            first = last
        return joining

    def edit_functions(self, site: Site, rows: range, device: torch.device, *, joined: bool) -> Sequence[EditFunction]:
        """Functions that edit a site in some rows; the activation begins with the first of these rows.

        Args:
            site: a whole site.
            rows: the rows.
            device: device of the activation.
            joined: whether the rows joined before the site; edits that were made at the join are then left out.
        """
        edits = [
            RowEdit(edit.row - rows.start, edit.prompt, edit.intervention, edit.pos)
            for edit in self.edits.get(site, ())
            if edit.row in rows and not (joined and _edited_at_join(self.joins[edit.row // len(self.prompts)], site))
        ]
        return edit_functions(edits, self.window, self.mask, device=device) if edits else ()

    def base_rows(self, base: Tensor, n_rows: int) -> Tensor:
        """A copy of the unedited run's activation in the group's window, for ``n_rows`` rows."""
        part = base[self.prompts, self.window.start : self.window.stop]
        return part.repeat(n_rows // len(self.prompts), *(1,) * (part.ndim - 1))

    def prefix(self, layer: Tensor, start: int) -> Tensor:
        """Keys or values of the group's prompts before position ``start``, ``[prompt, kv_head, pos, d_head]``."""
        first, n = self.prompts[0], len(self.prompts)
        adjacent = self.prompts[-1] - first == n - 1
        return (layer[first : first + n] if adjacent else layer[self.prompts])[:, :, :start]


def row_groups(chunk: Chunk, wave: Wave) -> list[RowGroup]:
    """The rows of a wave by the positions they run; prompts whose rows join at the same places share a group."""
    at = chunk.sweep.metric.positions(chunk.batch)
    one_position = at is not None and at.shape[1] == 1
    joins = [join_of(chunk.sweep.cells[cell], chunk.model.architecture) for cell in wave.cells]
    rows_of: dict[tuple[int, int, int], list[int]] = {}
    for row, (prompt, start, stop) in enumerate(zip(wave.prompts, wave.starts, wave.stops, strict=True)):
        rows_of.setdefault((prompt - chunk.prompts.start, start, stop), []).append(row)
    members_by_key: dict[tuple[object, ...], list[tuple[int, list[int]]]] = {}
    for (prompt, start, stop), rows in sorted(rows_of.items()):
        rows.sort(key=lambda row: joins[row])
        cells = [chunk.recorded.cells[wave.cells[row]] for row in rows]
        all_positions = any(needs_all_positions(intervention) for cell in cells for intervention in cell)
        answer = int(at[prompt, 0]) if at is not None and one_position and not all_positions else None
        key = (start, stop, answer, tuple(joins[row] for row in rows))
        members_by_key.setdefault(key, []).append((prompt, rows))
    return [_group(chunk, wave, joins, members=members, key=key) for key, members in members_by_key.items()]


def _group(
    chunk: Chunk, wave: Wave, joins: Sequence[Join], *, members: list[tuple[int, list[int]]], key: tuple[object, ...]
) -> RowGroup:
    prompts = [prompt for prompt, _ in members]
    turns = list(zip(*(rows for _, rows in members), strict=True))
    rows = [row for turn in turns for row in turn]
    cells = [chunk.recorded.cells[wave.cells[row]] for row in rows]
    edits = edits_by_site(cells, prompts * len(turns), chunk.batch)
    first = rows[0]
    window = Window(wave.starts[first], wave.stops[first])
    mask = attention_mask_of(chunk.model.backend)
    answer = key[2] if isinstance(key[2], int) else None
    return RowGroup(prompts, window, answer, rows, [joins[turn[0]] for turn in turns], mask, edits)


class FlatRows:
    """The row groups of a wave, and the layout of the flat activations that hold all their rows.

    Args:
        groups: the groups, in the order of the flat activations.
        device: device of the activations.
    """

    def __init__(self, groups: Sequence[RowGroup], device: torch.device) -> None:
        self.groups, self.device = groups, device

    def parts(self, flat: Tensor) -> Iterator[tuple[RowGroup, Tensor]]:
        """Splits a flat activation by group.

        Yields:
            Each group that has rows, and its part of the activation, ``[row, pos, *axes]``.
        """
        first = 0
        for group in self.groups:
            if group.present:
                part = flat[first : first + group.size]
                yield group, part.view(group.present, group.width, *flat.shape[1:])
            first += group.size

    def append_rows(self, flat: Tensor, new: dict[int, Tensor]) -> Tensor:
        """The flat activation with each group's new rows after its present ones; counts them as present."""
        if not new:
            return flat
        parts, first = [], 0
        for number, group in enumerate(self.groups):
            if group.size:
                parts.append(flat[first : first + group.size])
                first += group.size
            if number in new:
                parts.append(new[number].reshape(-1, flat.shape[-1]))
                group.turns += len(new[number]) // len(group.prompts)
        return torch.cat(parts)

    def edits(self, site: Site) -> bool:
        """Whether any row has an edit at a site."""
        return any(site in group.edits for group in self.groups)

    def edit(self, site: Site, flat: Tensor) -> None:
        """Makes the edits of a site in place, in all rows that joined before it."""
        if self.edits(site):
            for group, rows in self.parts(flat):
                for function in group.edit_functions(site, range(group.present), self.device, joined=True):
                    function(rows)

    def pattern_edit(self, group: RowGroup, site: Site) -> Callable[[Tensor], Tensor] | None:
        """A function that makes the edits of a pattern in a group's rows, in place; None if there are none."""
        edits = group.edit_functions(site, range(group.present), self.device, joined=True)
        if not edits:
            return None

        def function(pattern: Tensor) -> Tensor:
            for edit in edits:
                edit(pattern)
            return pattern

        return function

    def shrink_to_answers(self) -> Tensor:
        """Restricts groups to the answer position where possible; returns the flat positions that remain."""
        parts, first = [], 0
        for group in self.groups:
            places = first + torch.arange(group.size, device=self.device)
            first += group.size
            if group.at is not None:
                places = places.view(group.present, group.width)[:, group.at - group.window.start]
                group.window = Window(group.at, group.at + 1)
            parts.append(places)
        return torch.cat(parts)


def _edited_at_join(join: Join, site: Site) -> bool:
    """Whether the edit of a site was made when the row joined."""
    at_input = join.stage == INPUT and site.name == "resid_pre"
    return join.layer == site.layer and (join.site == site.name or at_input)
