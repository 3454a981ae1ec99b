"""Patching sweeps against TransformerLens' own and the next best ways, one thread, interleaved: ``make bench``.

Headline: GPT-2-small shape, random weights, 16 tokens, clean and corrupted differ at position 10 only, one pair.
TransformerLens' own function is timed on a random sample of its cells and scaled to all (it does the same work for
each); ours run whole. All give the same values: the largest difference over the sample is printed.

``--grid`` measures other prompt lengths, places of the difference, batches and a grouped-query shape; ``--bridge`` and
``--nnsight`` only those two, each in its own environment; ``--quick`` tries everything on a cut-down shape.
"""

import copy
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import grid, memory, peers
from benchmarks.floor import matrix_peak
from benchmarks.hooked import hooked_transformer, small_model
from benchmarks.machine import Reference, child, conditions, one_thread, results, write
from benchmarks.peers import pair
from benchmarks.rows import Settings, options, settings, show, sweep_row
from benchmarks.sweeps import HEADLINE, Sweep
from benchmarks.timing import Run, digits

__all__ = ["pair", "small_model"]
NAME = "patching.json"
ALLOWED = 1e-4  # difference between values of any two contenders
CONDITIONS = {
    "prompts": "1 pair, 16 tokens, difference at position 10 (counted from 0): 6 of 16 positions can have an effect",
    "TransformerLens": "timed on random cells and scaled, with its clean cache made once; on an object of its own, "
    "because ours gives the weights of its object other strides in place, which would speed TransformerLens up as well",
    "start_at_layer": "hand-written batches: a layer's cells stacked along the batch, run from its cached input "
    "on, only the last position unembedded; on TransformerLens' object",
    "wave, suffix, packed, fused": "levels 1 to 4 of ours: the whole method, with plan, both baselines and intervals; "
    "a level is checked at its first call, which is timed by itself; all on one object, whose weights are laid out",
    "floor": "GFLOP of any exact method that runs changed positions from the edit's layer on, and the unedited runs",
    "reference": "a plain torch forward of the same sizes, timed in turn with the rest; matches the processes",
}


def main() -> None:
    """Measures what is asked, prints and writes it."""
    parser = options(__doc__ or "")
    for name, what in (("grid", "other conditions"), ("bridge", "TransformerLens 4 only"), ("nnsight", "nnsight only")):
        parser.add_argument(f"--{name}", action="store_true", help=what)
    parser.add_argument(
        "--limit", type=float, default=grid.LIMIT, help="of the grid: estimated seconds of a sweep to skip"
    )
    for name in ("tokens", "prompts"):
        parser.add_argument(
            f"--{name}", type=int, help=f"of the grid: only this number of {name}, beside what is known"
        )
    given = parser.parse_args()
    asked = settings(given)
    one_thread()
    if given.grid:
        target = grid.measure(quick=given.quick, limit=given.limit, tokens=given.tokens, n_prompts=given.prompts)
    elif given.bridge or given.nnsight:
        target = others(asked, bridge=given.bridge, nnsight=given.nnsight)
    else:
        target = headline(asked)
    print(f"written to {target}", file=sys.stderr)
    wrong = [error for error in _differences(json.loads(target.read_text())) if not error < ALLOWED]
    if wrong:
        sys.exit(f"{len(wrong)} contenders differ by {max(wrong):.0e} or less, more than {ALLOWED:.0e}")


def headline(asked: Settings) -> Path:
    """Everything at the headline's conditions."""
    print(f"{asked.shape}; {CONDITIONS['prompts']}", flush=True)
    peaks = matrix_peak(0.02 if asked.quick else 0.3)
    rows, ready = _rows(asked)
    later = matrix_peak(0.02 if asked.quick else 0.3)
    peaks = {name: max(rate, later[name]) for name, rate in peaks.items()}
    for row in rows:
        for found in row["contenders"].values():
            found["share_of_peak"] = digits(row["floor_gflop"] / (found["seconds"] * max(peaks.values())), 3)
        row["contenders"]["reference"].pop("share_of_peak")
    repeats = f"median of {asked.repeats}, interleaved; fewer where a contender takes over 20 s in all"
    known = conditions("make bench") | {"shape": str(asked.shape)} | CONDITIONS
    known |= {"cells_timed": f"{asked.sample} of TransformerLens'", "repeats": repeats, "ready_seconds": digits(ready)}
    known |= {"matrix_peak_gflops": peaks}
    payload = {"conditions": known, "rows": rows, "memory": memory.measured(asked)}
    write(NAME, payload, quick=asked.quick)
    return others(asked, bridge=True, nnsight=True)


def _rows(asked: Settings) -> tuple[list[dict], float]:
    """On TransformerLens 3.9; and the seconds to make a model ready for ours."""
    theirs = hooked_transformer(asked.shape)
    model, ready = peers.prepared(copy.deepcopy(theirs), asked.shape.name, peers.as_batch(asked.prompts))
    shape, given, reference = asked.shape, asked.prompts, Reference(asked.shape)

    def row(sweep: Sweep) -> dict:
        sample = sweep.sample(shape, given, asked.sample)

        def patching() -> Run:
            return peers.transformer_lens(theirs, shape, given, sweep=sweep, sample=sample)

        def stacked() -> Run:
            return peers.start_at_layer(theirs, shape, given, sweep=sweep)

        contenders = {"reference": reference.run, "TransformerLens": patching, "start_at_layer": stacked}
        return sweep_row(model, asked, sweep, others=contenders, baseline="TransformerLens")

    return [row(sweep) for sweep in HEADLINE], ready


def others(asked: Settings, *, bridge: bool, nnsight: bool) -> Path:
    """The processes of their own, written beside what is known already."""
    target = results(NAME, quick=asked.quick)
    payload = json.loads(target.read_text()) if target.exists() else {}
    if bridge:
        payload["bridge"] = child("benchmarks.bridge", *asked.arguments(), venv=".venv-tl4")
    if nnsight:
        payload["nnsight"] = child("benchmarks.nnsight_peer", *asked.arguments(), venv=".venv-nnsight")
    for name in ("bridge", "nnsight"):
        for row in payload.get(name, {}).get("rows", ()):
            _match(row, payload.get("rows", ()), name)
            show(row)
    return write(NAME, payload, quick=asked.quick)


def _match(row: dict, rows: Sequence[dict], name: str) -> None:
    """What a peer's time would have been in the first process, by the reference that both timed."""
    same = [other["contenders"] for other in rows if other["sweep"] == row["sweep"]]
    if same:
        found = row["contenders"]
        ratio = found["reference"]["seconds"] / same[0]["reference"]["seconds"]
        row["reference_ratio"] = digits(ratio, 3)
        found[name]["matched_seconds"] = digits(found[name]["seconds"] / ratio)


def _differences(found: object) -> list[float]:
    """All largest differences, wherever they stand."""
    if isinstance(found, dict):
        own = [value for name, value in found.items() if name.startswith("largest_difference")]
        return own + [error for value in found.values() for error in _differences(value)]
    return [error for value in found for error in _differences(value)] if isinstance(found, list) else []


if __name__ == "__main__":
    main()
