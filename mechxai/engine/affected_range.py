"""Where each cell's edit begins to matter, prompt by prompt: its layer, its first position, or nowhere.

Under causal attention an edit at position p leaves earlier positions alone. A patch from another run of the same
prompts changes nothing before the first token in which the two differ, and from some place on nothing reaches the
positions a metric reads. Such cells have the value of the unedited run and are not computed. Tokens are compared, never
floats.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from mechxai.core.activations import Activations
from mechxai.core.edit import (
    AddNoise,
    Edit,
    Intervention,
    MeanAblate,
    Patch,
    Replace,
    ReplaceFrom,
    ResampleAblate,
    ZeroAblate,
)
from mechxai.core.site import Site
from mechxai.core.site_table import QUERY
from mechxai.engine.sources import RunSource
from mechxai.engine.sweep import Cell, Sweep, run_tokens

NEVER = 2**31 - 1
LATE = 10**6  # the entry layer of what lies after the last block


@dataclass(frozen=True)
class AffectedRange:
    """For every cell and prompt, what must be computed.

    Attributes:
        entry: layer at which a cell first differs from the base run, ``[cell]``; -1 before block 0, `LATE` after all.
        start: first position that changes, ``[cell, prompt]``.
        stop: position after the last one that is needed, ``[cell, prompt]``.
        changes: whether anything a metric reads can change, ``[cell, prompt]``.
    """

    entry: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    changes: np.ndarray


def entry_layer(cell: Cell) -> int:
    """The layer at which a cell first differs from the base run; -1 before block 0."""
    return min((_entry(one.site) for one in cell), default=-1)


def affected_range(sweep: Sweep, n_layers: int) -> AffectedRange:
    """What must be computed of each cell on each prompt, for a causal model. Nothing is run."""
    return _Reaching(sweep, n_layers).affected_range()


def needs_whole(one: Intervention) -> bool:
    """Whether an intervention must be given every position of its rows.

    Edits of all positions that are not said to treat each by itself must, and so must those that compute something over
    the source positions of a pattern. Edits before block 0 are given all positions in any case, whatever is run after.
    """
    if one.site.row.entry == "embed":
        return False
    if "src_pos" in one.site.row.axes:
        return not _replaces(one)
    return one.site.pos is None and not (one.edit.positionwise or _replaces(one))


def _replaces(one: Intervention) -> bool:
    """Whether the edit will be told where to put values, rather than called."""
    edit, pos = one.edit, one.site.pos
    if isinstance(edit, Patch):
        whole = isinstance(edit.source, Activations) and edit.source.kept is None
        return whole or isinstance(edit.source, RunSource)
    if isinstance(edit, ResampleAblate):  # a position relative to the row is another one in the other prompt
        return not isinstance(pos, str) and (pos or 0) >= 0
    return isinstance(edit, (ZeroAblate, MeanAblate, ReplaceFrom))


class _Reaching:
    """The rules, and what they share: each distinct edit and place is looked at once."""

    def __init__(self, sweep: Sweep, n_layers: int) -> None:
        self._sweep, self._n_layers = sweep, n_layers
        tokens, lengths = run_tokens(sweep.batch, sweep.run, sweep.metric)
        self._width = tokens.shape[1]
        at = sweep.metric.positions(sweep.batch)
        n_prompts = len(sweep.batch)
        self._read = np.zeros((n_prompts, self._width), bool)  # positions the metric reads
        if at is None:
            self._read[:] = np.arange(self._width)[None] < _numbers(lengths)[:, None]
            self._last = np.full(n_prompts, self._width - 1)
        else:
            np.put_along_axis(self._read, _numbers(at), values=True, axis=1)
            self._last = _numbers(at).max(1)
        self._firsts: dict[int, np.ndarray] = {}
        self._places: dict[tuple[object, ...], tuple[np.ndarray, np.ndarray]] = {}
        self._base_first = np.full(n_prompts, NEVER)
        for one in sweep.base:
            self._base_first = np.minimum(self._base_first, self._place(one)[0])
        self._whole_base = any(needs_whole(one) for one in sweep.base)

    def affected_range(self) -> AffectedRange:
        cells, n_prompts = self._sweep.cells, len(self._sweep.batch)
        entry = np.array([entry_layer(cell) for cell in cells], dtype=np.int64)
        start = np.full((len(cells), n_prompts), NEVER)
        stop = np.tile(self._last + 1, (len(cells), 1))
        for index, cell in enumerate(cells):
            for one in cell:
                np.minimum(start[index], self._place(one)[1], out=start[index])
        changes = start < NEVER
        for index, cell in enumerate(cells):
            if self._whole_base or any(needs_whole(one) for one in cell):
                start[index] = np.where(changes[index], 0, NEVER)
                stop[index] = self._width
        return AffectedRange(entry, start, stop, changes)

    def _place(self, one: Intervention) -> tuple[np.ndarray, np.ndarray]:
        """The first position an intervention changes, and the same where it can matter to the metric (else NEVER)."""
        site = one.site
        local = _is_local(site, self._n_layers)
        key = (id(one.edit), site.pos, local)
        if key not in self._places:
            first = self._first(one.edit)
            if site.pos is None:
                found, matters = first, first <= self._last
            else:
                positions, valid = (_numbers(part) for part in self._sweep.batch.layout.positions(site.pos))
                found = np.where(valid.astype(bool) & (positions >= first), positions, NEVER)
                read = np.take_along_axis(self._read, np.minimum(positions, self._width - 1)[:, None], 1)[:, 0]
                matters = read if local else positions <= self._last
            self._places[key] = (found, np.where(matters, found, NEVER))
        return self._places[key]

    def _first(self, edit: Edit) -> np.ndarray:
        """The first position of each prompt at which an edit of all positions would change something."""
        if id(edit) not in self._firsts:
            self._firsts[id(edit)] = self._compare(edit)
        return self._firsts[id(edit)]

    def _compare(self, edit: Edit) -> np.ndarray:
        batch = self._sweep.batch
        if isinstance(edit, Patch) and isinstance(edit.source, RunSource) and edit.source.batch is batch:
            if edit.source.run == self._sweep.run:
                return self._base_first
            first, lengths = _numbers(batch.first_difference), _numbers(batch.lengths)
            return np.minimum(np.where(first < lengths, first, NEVER), self._base_first)
        if isinstance(edit, (AddNoise, Replace)) and edit.where is not None:
            where = _numbers(edit.where).astype(bool)
            places = where.reshape(*where.shape[:2], -1).any(-1)
            return np.where(places.max(1), places.argmax(1), NEVER)
        if isinstance(edit, ReplaceFrom):
            first, lengths = _numbers(edit.first), _numbers(batch.lengths)
            return np.where(first < lengths, first, NEVER)
        return np.zeros(len(batch), dtype=np.int64)


def _is_local(site: Site, n_layers: int) -> bool:
    """Whether what stands at one position of a site can reach no other before the end."""
    return site.row.entry == "end" or (site.layer == n_layers - 1 and site.row.stage >= QUERY)


def _entry(site: Site) -> int:
    if site.layer is not None:
        return site.layer
    return -1 if site.row.entry == "embed" else LATE


_numbers: Callable[[Tensor], np.ndarray] = lambda tensor: tensor.cpu().numpy().astype(np.int64)  # noqa: E731
