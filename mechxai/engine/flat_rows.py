"""Rows of any length laid out flat, position after position, grouped by the positions they run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mechxai.core.site import Site
from mechxai.engine.affected_range import needs_whole
from mechxai.engine.chunk import Chunk
from mechxai.engine.plan import Wave
from mechxai.engine.row_edits import RowEdit, Step, Window, placed, steps
from mechxai.engine.row_joins import INPUT, Join, join_of


@dataclass
class Group:
    """Rows of some prompts, as many of each, that run the same positions and join at the same places.

    They take turns: the first row of every prompt, then the second of every prompt, and so on.

    Attributes:
        prompts: counted in the chunk, ascending.
        window: the positions that are run; shrinks to the answer's in the last layer.
        at: the answer position, where the rows may shrink to it.
        rows: the wave's rows, turn by turn, in the order in which they join.
        joins: where the rows of each turn join, ascending.
        edits: whole site -> edits, rows counted in the group.
        turns: how many turns have joined.
    """

    prompts: list[int]
    window: Window
    at: int | None
    rows: list[int]
    joins: list[Join]
    edits: dict[Site, list[RowEdit]] = field(default_factory=dict)
    turns: int = 0

    @property
    def present(self) -> int:
        """Rows that have joined."""
        return self.turns * len(self.prompts)

    @property
    def width(self) -> int:
        """Positions each row runs."""
        return self.window.stop - self.window.start

    @property
    def size(self) -> int:
        """Positions of all rows that have joined."""
        return self.present * self.width

    def joining(self, layer: int, stage: int) -> list[tuple[Join, range]]:
        """The rows that join next, at a place; those that are edited at the same site there together."""
        found, first, n = [], self.turns, len(self.prompts)
        while first < len(self.joins) and (self.joins[first].layer, self.joins[first].stage) == (layer, stage):
            last = first + self.joins[first:].count(self.joins[first])  # equal ones stand together
            found.append((self.joins[first], range(first * n, last * n)))
            first = last
        return found

    def steps(self, site: Site, rows: range, device: torch.device, *, joined: bool) -> Sequence[Step]:
        """What edits a site in some rows, which are counted from the first of them.

        Args:
            site: a whole site.
            rows: the rows.
            device: where the activation lies.
            joined: whether the rows have joined before the site, so that what was edited as they joined is left out.
        """
        found = [
            RowEdit(edit.row - rows.start, edit.prompt, edit.one, edit.pos)
            for edit in self.edits.get(site, ())
            if edit.row in rows and not (joined and _edited_at_join(self.joins[edit.row // len(self.prompts)], site))
        ]
        return steps(found, self.window, device=device) if found else ()

    def of_base(self, whole: Tensor, n_rows: int) -> Tensor:
        """Rows of the unedited run's activation in the group's window, to be written into."""
        part = whole[self.prompts, self.window.start : self.window.stop]
        return part.repeat(n_rows // len(self.prompts), *(1,) * (part.ndim - 1))

    def before(self, layer: Tensor, start: int) -> Tensor:
        """Keys or values, ``[prompt, kv_head, pos, d_head]``, of the positions before ``start`` of its prompts."""
        first, n = self.prompts[0], len(self.prompts)
        in_a_row = self.prompts[-1] - first == n - 1
        return (layer[first : first + n] if in_a_row else layer[self.prompts])[:, :, :start]


def grouped(chunk: Chunk, wave: Wave) -> list[Group]:
    """The rows of a wave by the positions they run; prompts whose rows join alike share a group."""
    at = chunk.sweep.metric.positions(chunk.batch)
    one_place = at is not None and at.shape[1] == 1
    joins = [join_of(chunk.sweep.cells[cell], chunk.model.architecture) for cell in wave.cells]
    rows_of: dict[tuple[int, int, int], list[int]] = {}
    for row, (prompt, start, stop) in enumerate(zip(wave.prompts, wave.starts, wave.stops, strict=True)):
        rows_of.setdefault((prompt - chunk.prompts.start, start, stop), []).append(row)
    alike: dict[tuple[object, ...], list[tuple[int, list[int]]]] = {}
    for (prompt, start, stop), rows in sorted(rows_of.items()):
        rows.sort(key=lambda row: joins[row])
        cells = [chunk.recorded.cells[wave.cells[row]] for row in rows]
        whole = any(needs_whole(one) for cell in cells for one in cell)
        answer = int(at[prompt, 0]) if at is not None and one_place and not whole else None
        key = (start, stop, answer, tuple(joins[row] for row in rows))
        alike.setdefault(key, []).append((prompt, rows))
    return [_group(chunk, wave, joins, members=members, key=key) for key, members in alike.items()]


def _group(
    chunk: Chunk, wave: Wave, joins: Sequence[Join], *, members: list[tuple[int, list[int]]], key: tuple[object, ...]
) -> Group:
    prompts = [prompt for prompt, _ in members]
    turns = list(zip(*(rows for _, rows in members), strict=True))
    rows = [row for turn in turns for row in turn]
    cells = [chunk.recorded.cells[wave.cells[row]] for row in rows]
    edits = placed(cells, prompts * len(turns), chunk.batch)
    first = rows[0]
    window = Window(wave.starts[first], wave.stops[first])
    answer = key[2] if isinstance(key[2], int) else None
    return Group(prompts, window, answer, rows, [joins[turn[0]] for turn in turns], edits)


class FlatRows:
    """The groups of a wave and the flat activations that hold all their rows.

    Args:
        groups: the groups, in the order in which they lie.
        device: where activations lie.
    """

    def __init__(self, groups: Sequence[Group], device: torch.device) -> None:
        self.groups, self.device = groups, device

    def parts(self, flat: Tensor) -> Iterator[tuple[Group, Tensor]]:
        """The groups of a flat activation.

        Yields:
            Each group with rows, and their part, ``[row, pos, *axes]``.
        """
        first = 0
        for group in self.groups:
            if group.present:
                part = flat[first : first + group.size]
                yield group, part.view(group.present, group.width, *flat.shape[1:])
            first += group.size

    def grown(self, flat: Tensor, new: dict[int, Tensor]) -> Tensor:
        """The flat rows with new ones, by group, behind those of their group; they count as present."""
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
        """Whether any row is edited at a site."""
        return any(site in group.edits for group in self.groups)

    def edit(self, site: Site, flat: Tensor) -> None:
        """Makes the edits of a site in all rows that joined before it, in place."""
        if self.edits(site):
            for group, rows in self.parts(flat):
                for step in group.steps(site, range(group.present), self.device, joined=True):
                    step(rows)

    def pattern_edit(self, group: Group, site: Site) -> Callable[[Tensor], Tensor] | None:
        """What makes the edits of a pattern in a group's rows, in place; None where there are none."""
        made = group.steps(site, range(group.present), self.device, joined=True)
        if not made:
            return None

        def function(pattern: Tensor) -> Tensor:
            for step in made:
                step(pattern)
            return pattern

        return function

    def shrunk(self) -> Tensor:
        """Lets groups go on at the answer position only; gives the flat positions that go on."""
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
    """Whether a row's edit of a site was made when it joined."""
    at_input = join.stage == INPUT and site.name == "resid_pre"
    return join.layer == site.layer and (join.site == site.name or at_input)
