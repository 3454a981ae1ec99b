"""The speed-up as a function of prompt length, place of the difference, batch size and model shape.

``python -m benchmarks.patching --grid``. Ours at its highest level and TransformerLens on a few cells, in rotation.
"""

import copy
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mechxai as mx
from benchmarks import peers
from benchmarks.floor import forward_flops, matrix_peak, sweep_flops
from benchmarks.hooked import hooked_transformer
from benchmarks.machine import conditions, results, summary, write
from benchmarks.shapes import GPT2_SMALL, GROUPED_QUERY, Prompts, Shape, prompts
from benchmarks.sweeps import GRID, Sweep
from benchmarks.timing import digits, interleaved, largest_difference, median

LIMIT = 20.0  # estimated seconds of ours above which a sweep is skipped
_LONG = 6.0  # seconds after which a contender does not run again
_SHARE = 0.5  # share of the matrix peak, for estimates only
_LATE = 6  # positions from the difference to the end
WIDTHS, BATCHES = (16, 64, 256), (1, 8, 32)
CONDITIONS = {
    "ours": "highest level, the full method; each level was checked on 16 tokens before",
    "TransformerLens": "timed on 4 cells (1 where a forward pass is estimated at over a second) and scaled, with its "
    "clean cache built once; the prompts of a batch run together; on a separate object",
    "difference": f"at one position: early is 1, middle is half of the tokens, late is {_LATE} before the end",
    "repeats": f"median of up to 3, interleaved; no further run after {_LONG:.0f} s in total",
    "values": "means over prompts, compared on TransformerLens' cells",
}


@dataclass(frozen=True)
class _Condition:
    shape: Shape
    width: int
    place: str
    n_prompts: int

    @property
    def pairs(self) -> Prompts:
        first = {"early": 1, "middle": self.width // 2, "late": self.width - _LATE}[self.place]
        return prompts(self.shape, self.width, first, self.n_prompts)


def measure(*, quick: bool, limit: float = LIMIT, tokens: int | None = None, n_prompts: int | None = None) -> Path:
    """Runs the grid; the results are written after every model shape.

    With ``tokens`` or ``n_prompts``, runs only those conditions and replaces their rows in the file.
    """
    peak = max(matrix_peak(0.02 if quick else 0.3).values())
    known = (
        conditions(f"python -m benchmarks.patching --grid --limit {limit:g}")
        | CONDITIONS
        | {"matrix_peak_gflops": peak, "limit": limit}
    )
    chosen = {"tokens": tokens, "prompts": n_prompts}
    rows: list[dict[str, Any]] = []
    if any(chosen.values()):
        before = _earlier_results(quick=quick)
        rows = [row for row in before["rows"] if not _selected(row, chosen)]
        known = before["conditions"] | {"also": f"{known['command']} --tokens {tokens} --prompts {n_prompts}"}
    for shape in (GPT2_SMALL, GROUPED_QUERY):
        used = shape.quick() if quick else shape
        theirs = hooked_transformer(used)
        model = mx.wrap(copy.deepcopy(theirs), name=used.name)
        for sweep in GRID:  # checks the level, once per model and site
            peers.ours(model, peers.as_batch(prompts(used)), sweep)
        for condition in _conditions(used, quick=quick):
            if not _selected({"tokens": condition.width, "prompts": condition.n_prompts}, chosen):
                continue
            for sweep in GRID:
                rows.append(_row(theirs, model, condition, sweep=sweep, peak=peak, limit=limit))
                _show(rows[-1])
            target = write("patching_grid.json", {"conditions": known, "rows": _sorted(rows)}, quick=quick)
    return target


def _earlier_results(*, quick: bool) -> dict[str, Any]:
    target = results("patching_grid.json", quick=quick)
    return json.loads(target.read_text()) if target.exists() else {"conditions": {}, "rows": []}


def _sorted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    sweeps = [sweep.name for sweep in GRID]
    shapes = list(dict.fromkeys(row["shape"] for row in rows))
    return sorted(
        rows,
        key=lambda row: (
            shapes.index(row["shape"]),
            row["tokens"],
            row["prompts"],
            row["first"],
            sweeps.index(row["sweep"]),
        ),
    )


def _selected(row: dict[str, Any], chosen: dict[str, int | None]) -> bool:
    return all(value in (None, row[name]) for name, value in chosen.items())


def _conditions(shape: Shape, *, quick: bool) -> Iterator[_Condition]:
    widths, batches = ((16, 24), (1, 2)) if quick else (WIDTHS, BATCHES)
    for width, n_prompts, place in itertools.product(widths, batches, ("early", "middle", "late")):
        yield _Condition(shape, width, place, n_prompts)


def _row(
    theirs: Any, model: mx.HookedModel, condition: _Condition, *, sweep: Sweep, peak: float, limit: float
) -> dict[str, Any]:
    shape, pairs = condition.shape, condition.pairs
    flops = sweep_flops(shape, pairs, sweep)
    estimate = flops / (_SHARE * peak * 1e9)
    row = {
        "shape": shape.name,
        "sweep": sweep.name,
        "cells": len(sweep.cells(shape, pairs.width)),
        "tokens": pairs.width,
        "difference": condition.place,
        "first": pairs.first,
        "prompts": len(pairs),
        "floor_gflop": digits(flops / 1e9),
    }
    if estimate > limit:
        return row | {"skipped": f"estimated at {estimate:.0f} s"}
    forward = len(pairs) * forward_flops(shape, pairs.width) / (_SHARE * peak * 1e9)
    sample = sweep.sample(shape, pairs, 4 if forward < 1 else 1)
    batch = peers.as_batch(pairs)
    contenders = {
        "TransformerLens": lambda: peers.transformer_lens(theirs, shape, pairs, sweep=sweep, sample=sample),
        "auto": lambda: peers.ours(model, batch, sweep),
    }
    runs = interleaved(contenders, 3, long=_LONG)
    lens, ours = runs["TransformerLens"], runs["auto"]
    return row | {
        "contenders": {"TransformerLens": summary(lens) | {"cells_timed": len(sample)}, "auto": summary(ours)},
        "ran": ours[-1].note,
        "ratio": digits(median(lens) / median(ours), 3),
        "floor_ratio": digits(median(lens) * peak * 1e9 / flops, 3),
        "share_of_peak": digits(flops / (median(ours) * peak * 1e9), 3),
        "largest_difference": largest_difference(ours, lens),
    }


def _show(row: dict[str, Any]) -> None:
    outcome = row.get("skipped")
    if outcome is None:
        lens, ours = (row["contenders"][name]["seconds"] for name in ("TransformerLens", "auto"))
        quality = f"{row['ran']}, {row['share_of_peak']:.0%} of peak, off by {row['largest_difference']:.0e}"
        outcome = f"{lens} s -> {ours} s, {row['ratio']}x ({quality})"
    where = f"{row['tokens']} tokens, {row['difference']}, {row['prompts']} prompts"
    print(f"{row['shape']}, {row['sweep']}, {where}: {outcome}", flush=True)
