"""The layers and positions that each cell's edit can change, prompt by prompt.

Under causal attention an edit at position p leaves earlier positions unchanged. A patch from another run of the same
prompts changes nothing before the first token in which the two runs differ, and an edit that cannot reach a position
that the metric reads has no effect. Such cells have the value of the unedited run and are not computed. The runs are
compared by their tokens, never by floats.
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
LATE = 10**6  # the entry layer of sites after the last block


@dataclass(frozen=True)
class AffectedRange:
    """The part of a run that each cell changes, and that must be computed.

    Cells that change the same positions on every prompt are of one kind, so that a large sweep has few kinds.

    Attributes:
        entry: layer at which a cell first differs from the base run, ``[cell]``; -1 before block 0, `LATE` after all.
        kind: the kind of each cell, ``[cell]``.
        starts: first position that changes, ``[kind, prompt]``; `NEVER` where the metric cannot see a change.
        stops: position after the last that must be computed, ``[kind, prompt]``.
    """

    entry: np.ndarray
    kind: np.ndarray
    starts: np.ndarray
    stops: np.ndarray


def entry_layer(cell: Cell) -> int:
    """The layer at which a cell first differs from the base run; -1 before block 0."""
    return min((_entry(intervention.site) for intervention in cell), default=-1)


def affected_range(sweep: Sweep, n_layers: int) -> AffectedRange:
    """The affected range of each cell on each prompt, for a causal model. Runs no forward pass."""
    return _RangeFinder(sweep, n_layers).affected_range()


def needs_all_positions(intervention: Intervention) -> bool:
    """Whether an intervention must see every position of its rows.

    This holds for edits of all positions that are not positionwise, and for edits that compute over the source
    positions of a pattern. Edits before block 0 see all positions in any case, whichever positions run afterwards.
    """
    if intervention.site.row.entry == "embed":
        return False
    if "src_pos" in intervention.site.row.axes:
        return not _replaces(intervention)
    return intervention.site.pos is None and not (intervention.edit.positionwise or _replaces(intervention))


def _replaces(intervention: Intervention) -> bool:
    """Whether the edit is made by copying known values into place, rather than by calling it."""
    edit, pos = intervention.edit, intervention.site.pos
    if isinstance(edit, Patch):
        all_kept = isinstance(edit.source, Activations) and edit.source.kept is None
        return all_kept or isinstance(edit.source, RunSource)
    if isinstance(edit, ResampleAblate):  # a relative position is a different one in the other prompt
        return not isinstance(pos, str) and (pos or 0) >= 0
    return isinstance(edit, (ZeroAblate, MeanAblate, ReplaceFrom))


class _RangeFinder:
    """The rules, with a cache so that each distinct edit and position is examined once."""

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
        self._starts: dict[tuple[object, ...], tuple[np.ndarray, np.ndarray]] = {}
        self._base_first = np.full(n_prompts, NEVER)
        for intervention in sweep.base:
            self._base_first = np.minimum(self._base_first, self._start(intervention)[0])
        self._base_needs_all = any(needs_all_positions(intervention) for intervention in sweep.base)

    def affected_range(self) -> AffectedRange:
        cells = self._sweep.cells
        entry = np.array([entry_layer(cell) for cell in cells], dtype=np.int64)
        kinds: dict[tuple[object, ...], int] = {}
        starts: list[np.ndarray] = []
        whole: list[bool] = []
        kind = np.zeros(len(cells), dtype=np.int64)
        for index, cell in enumerate(cells):
            needs_all = self._base_needs_all or any(needs_all_positions(intervention) for intervention in cell)
            key = (needs_all, *{self._key(intervention) for intervention in cell})
            if key not in kinds:
                kinds[key] = len(starts)
                starts.append(self._earliest(cell, whole=needs_all))
                whole.append(needs_all)
            kind[index] = kinds[key]
        table = np.array(starts, dtype=np.int32).reshape(len(starts), len(self._last))
        stops = np.where(np.array(whole, dtype=bool)[:, None], self._width, self._last + 1).astype(np.int32)
        return AffectedRange(entry, kind, table, stops)

    def _earliest(self, cell: Cell, *, whole: bool) -> np.ndarray:
        """The first position of each prompt that a cell changes; 0 where it needs whole rows."""
        start = np.full(len(self._last), NEVER)
        for intervention in cell:
            start = np.minimum(start, self._start(intervention)[1])
        return np.where(start < NEVER, 0, NEVER) if whole else start

    def _key(self, intervention: Intervention) -> tuple[object, ...]:
        """What decides the positions that an intervention changes."""
        return (id(intervention.edit), intervention.site.pos, _is_local(intervention.site, self._n_layers))

    def _start(self, intervention: Intervention) -> tuple[np.ndarray, np.ndarray]:
        """The first position that an intervention changes; and the same, or NEVER where the metric cannot see it."""
        site = intervention.site
        key = self._key(intervention)
        if key not in self._starts:
            first = self._first(intervention.edit)
            if site.pos is None:
                start, matters = first, first <= self._last
            else:
                positions, valid = (_numbers(part) for part in self._sweep.batch.layout.positions(site.pos))
                start = np.where(valid.astype(bool) & (positions >= first), positions, NEVER)
                read = np.take_along_axis(self._read, np.minimum(positions, self._width - 1)[:, None], 1)[:, 0]
                matters = read if _is_local(site, self._n_layers) else positions <= self._last
            self._starts[key] = (start, np.where(matters, start, NEVER))
        return self._starts[key]

    def _first(self, edit: Edit) -> np.ndarray:
        """The first position of each prompt that an edit of all positions would change."""
        if id(edit) not in self._firsts:
            self._firsts[id(edit)] = self._first_change(edit)
        return self._firsts[id(edit)]

    def _first_change(self, edit: Edit) -> np.ndarray:
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
    """Whether a site's activation at one position can no longer reach other positions."""
    return site.row.entry == "end" or (site.layer == n_layers - 1 and site.row.stage >= QUERY)


def _entry(site: Site) -> int:
    if site.layer is not None:
        return site.layer
    return -1 if site.row.entry == "embed" else LATE


_numbers: Callable[[Tensor], np.ndarray] = lambda tensor: tensor.cpu().numpy().astype(np.int64)  # noqa: E731
