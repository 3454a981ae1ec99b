"""The self-check: a level is used once it reproduces the values of level 0 on this model; otherwise the next lower."""

import logging
import random
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mechxai.core.edit import Edit, Patch
from mechxai.engine.evaluate import evaluate_plan
from mechxai.engine.execution import HOOKED, LEVEL_NAMES, Execution
from mechxai.engine.plan import Plan, plan
from mechxai.engine.sources import RunSource
from mechxai.engine.sweep import Cell, Sweep
from mechxai.engine.sweep_slice import EditMapping
from mechxai.model.hooked_model import HookedModel

_log = logging.getLogger("mechxai.engine")
_N_CELLS = 8
_SLACK = 4.0  # times the spread of level 0 at two batch sizes
_EPS = {torch.float32: 32.0, torch.float64: 32.0}  # units in the last place that the order of sums may change
_EPS_HALF = 4.0  # likewise in half precision
# Errors that a model may raise from inside when a level does not fit it.
_MISFITS = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, NotImplementedError)


@dataclass(frozen=True)
class CheckedLevel:
    """The result of a self-check.

    Attributes:
        level: the highest level that reproduces level 0.
        noise_floor: the largest difference that rounding alone makes: between this level and level 0, between level 0
            at two batch sizes, and between two cells without edits in one batch.
        forward_passes: forward passes of the check.
    """

    level: int
    noise_floor: float
    forward_passes: int


_checked: "weakref.WeakKeyDictionary[HookedModel, dict[tuple[object, ...], CheckedLevel]]" = weakref.WeakKeyDictionary()


def self_check(model: HookedModel, sweep: Sweep, planned: Plan) -> CheckedLevel:
    """The level to use and the noise floor; computed once per model, sites, metric and prompt layout."""
    key = (_edit_kinds(sweep), _prompt_layout(sweep), sweep.metric, sweep.run, planned.level)
    results = _checked.setdefault(model, {})
    if key not in results:
        results[key] = _check(model, sweep, planned)
    return results[key]


def _edit_kinds(sweep: Sweep) -> tuple[object, ...]:
    """The sites and kinds of edits (of one position, head or neuron, or of all), which decide what code runs."""
    return tuple(sorted({kind for cell in (sweep.base, *sweep.cells) for kind in _cell_kind(cell)}))


def _cell_kind(cell: Cell) -> tuple[tuple[object, ...], ...]:
    """The site and kind of each edit of a cell."""
    return tuple(
        (
            intervention.site.name,
            type(intervention.edit).__name__,
            intervention.site.pos is None,
            intervention.site.head is None,
            intervention.site.neuron is None,
        )
        for intervention in cell
    )


def _prompt_layout(sweep: Sweep) -> tuple[bool, ...]:
    """Whether the batch has several prompts, padding, and positions after the answer."""
    batch = sweep.batch
    padded = bool((batch.lengths < batch.n_pos).any())
    return len(batch) > 1, padded, bool((batch.answer_pos < batch.lengths - 1).any())


def _check(model: HookedModel, sweep: Sweep, planned: Plan) -> CheckedLevel:
    prompts = _prompts(sweep)
    sample = _sample(sweep, _sample_cells(sweep, planned, prompts), prompts)
    n_prompts, n_cells = len(prompts), len(sample.cells)
    cells = range(n_cells)
    together = _oracle(model, sample, cells)
    parts = [_oracle(model, sample, part) for part in (cells[: n_cells // 2], cells[n_cells // 2 :])]
    spread = float((together - torch.cat(parts)).abs().max())
    passes = 2 * n_prompts * n_cells
    rounding = _EPS.get(model.dtype, _EPS_HALF) * torch.finfo(model.dtype).eps
    tolerance = _SLACK * spread + rounding * max(1.0, _logit_size(model, sample), float(together.abs().max()))
    finite = bool(torch.isfinite(together).all())
    level = planned.level if finite else HOOKED  # NaN is reported where it is computed
    floor = max(spread, float((together[-1] - together[-2]).abs().max()))
    while level > HOOKED:
        error = _error(model, sample, together, level=level)
        passes += n_prompts * (1 + n_cells)
        if isinstance(error, float) and error <= tolerance:
            floor = max(floor, error)
            break
        reason = f"differs from level 0 by {error:.2g} (allowed {tolerance:.2g})" if isinstance(error, float) else error
        _log.warning("level %d (%s) %s on %s; using level %d", level, LEVEL_NAMES[level], reason, model.name, level - 1)
        level -= 1
    return CheckedLevel(level, floor, passes)


def _logit_size(model: HookedModel, sample: Sweep) -> float:
    """The largest logit at an answer position: the metric inherits the rounding of the logits, however small it is."""
    batch = sample.batch.rows(slice(0, 1))
    with torch.no_grad():
        return float(
            model.logits(batch.tokens(sample.run), lengths=batch.lengths, at=batch.answer_pos[:, None]).abs().max()
        )


def _prompts(sweep: Sweep) -> list[int]:
    """The longest and the shortest prompt, and those with the earliest answer and with most tokens after it."""
    lengths, answers = sweep.batch.lengths.tolist(), sweep.batch.answer_pos.tolist()
    rows = range(len(lengths))
    chosen = {max(rows, key=lambda row: lengths[row]), min(rows, key=lambda row: (lengths[row], -row))}
    if any(answers[row] < lengths[row] - 1 for row in rows):
        chosen |= {min(rows, key=lambda row: answers[row]), max(rows, key=lambda row: lengths[row] - answers[row])}
    return sorted(chosen)


def _sample_cells(sweep: Sweep, planned: Plan, prompts: Sequence[int]) -> list[int]:
    """Random cells for the check: one of each kind of edit, and half of the others among those the plan computes."""
    draw = random.Random(0)
    n_cells = len(sweep.cells)
    by_kind: dict[object, list[int]] = {}
    for cell in range(n_cells):
        by_kind.setdefault(_cell_kind(sweep.cells[cell]), []).append(cell)
    of_each = {draw.choice(cells) for cells in by_kind.values()}
    computed = sorted({cell for waves in planned.waves for cell in waves.cells_on(prompts)})
    chosen = sorted(of_each | set(draw.sample(computed, min(_N_CELLS // 2, len(computed)))))
    rest = sorted(set(range(n_cells)) - set(chosen))
    return chosen + draw.sample(rest, min(max(0, _N_CELLS - len(chosen)), len(rest)))


def _sample(sweep: Sweep, cells: Sequence[int], prompts: Sequence[int]) -> Sweep:
    """The sweep of these cells, and of two cells without edits, on these prompts."""
    rows = torch.tensor(prompts, device=sweep.batch.clean.device)
    batch = sweep.batch.rows(rows)

    def cut(edit: Edit) -> Edit:
        if isinstance(edit, Patch) and isinstance(edit.source, RunSource):  # the level records it, as in a sweep
            same_batch = edit.source.batch is sweep.batch
            return Patch(replace(edit.source, batch=batch if same_batch else edit.source.batch.rows(rows)))
        return edit.rows(rows)

    cut_cell = EditMapping(cut)
    sample_cells = [*(cut_cell(sweep.cells[index]) for index in cells), (), ()]
    return replace(sweep, batch=batch, cells=sample_cells, base=cut_cell(sweep.base))


def _oracle(model: HookedModel, sample: Sweep, cells: range) -> Tensor:
    return _values(model, replace(sample, cells=[sample.cells[index] for index in cells]), HOOKED)


def _error(model: HookedModel, sample: Sweep, expected: Tensor, *, level: int) -> float | str:
    """The largest difference from level 0, or the reason why the level fails."""
    try:
        values = _values(model, sample, level)
    except _MISFITS as error:
        reason = str(error).splitlines()[0] if str(error) else ""
        return f"failed ({type(error).__name__}: {reason})"
    difference = float((values - expected).abs().max())
    return difference if difference == difference else float("inf")  # NaN counts as a difference


def _values(model: HookedModel, sample: Sweep, level: int) -> Tensor:
    execution = Execution(tokens_per_wave=len(sample.cells) * sample.batch.n_pos * 2 * len(sample.batch))
    return evaluate_plan(model, sample, plan(model, sample, execution, level=level))
