"""Patching sweeps against TransformerLens and hand-written batches, on one thread, interleaved: ``make bench``.

Headline: GPT-2-small shape, random weights, 16 tokens, one prompt pair that differs at position 10 only. The patching
function of TransformerLens is timed on a random sample of its cells and scaled to all, since each cell costs the same;
ours run in full. All contenders compute the same values; the largest difference over the sample is printed.

``--grid`` measures other prompt lengths, places of the difference, batch sizes and a grouped-query shape; ``--bridge``
and ``--nnsight`` run only those peers, each in its own environment; ``--quick`` runs everything on a small shape.
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
from benchmarks.rows import Settings, options, parse_settings, show, sweep_row
from benchmarks.sweeps import HEADLINE, Sweep
from benchmarks.timing import Run, digits

__all__ = ["pair", "small_model"]
NAME = "patching.json"
ALLOWED = 1e-4  # largest difference between the values of two contenders
CONDITIONS = {
    "prompts": "1 pair, 16 tokens, difference at position 10 (counted from 0): 6 of 16 positions can have an effect",
    "TransformerLens": "timed on random cells and scaled, with its clean cache built once; on a separate object, "
    "because ours changes the strides of weights in place, which would speed up TransformerLens as well",
    "start_at_layer": "hand-written batches: the cells of a layer stacked along the batch, run from its cached "
    "input, only the last position unembedded; on the object of TransformerLens",
    "wave, suffix, packed, fused": "levels 1 to 4 of ours: the full method, with plan, both baselines and intervals; "
    "the first call of a level, which checks it, is timed separately; all on one object with prepared weights",
    "floor": "GFLOP of any exact method that runs changed positions from the layer of the edit, and the unedited runs",
    "reference": "a plain torch forward pass of the same sizes, timed in rotation with the rest; matches processes",
}


def main() -> None:
    """Measures the chosen part, prints it and writes it."""
    parser = options(__doc__ or "")
    for name, text in (("grid", "other conditions"), ("bridge", "TransformerLens 4 only"), ("nnsight", "nnsight only")):
        parser.add_argument(f"--{name}", action="store_true", help=text)
    parser.add_argument(
        "--limit", type=float, default=grid.LIMIT, help="for the grid: skip sweeps with a longer estimate, in seconds"
    )
    for name in ("tokens", "prompts"):
        parser.add_argument(
            f"--{name}", type=int, help=f"for the grid: measure only this number of {name}, and keep the other results"
        )
    arguments = parser.parse_args()
    settings = parse_settings(arguments)
    one_thread()
    if arguments.grid:
        target = grid.measure(
            quick=arguments.quick, limit=arguments.limit, tokens=arguments.tokens, n_prompts=arguments.prompts
        )
    elif arguments.bridge or arguments.nnsight:
        target = others(settings, bridge=arguments.bridge, nnsight=arguments.nnsight)
    else:
        target = headline(settings)
    print(f"written to {target}", file=sys.stderr)
    wrong = [error for error in _differences(json.loads(target.read_text())) if not error < ALLOWED]
    if wrong:
        sys.exit(f"{len(wrong)} contenders differ by up to {max(wrong):.0e}; the limit is {ALLOWED:.0e}")


def headline(settings: Settings) -> Path:
    """All contenders at the headline conditions."""
    print(f"{settings.shape}; {CONDITIONS['prompts']}", flush=True)
    peaks = matrix_peak(0.02 if settings.quick else 0.3)
    rows, ready = _rows(settings)
    later = matrix_peak(0.02 if settings.quick else 0.3)
    peaks = {name: max(rate, later[name]) for name, rate in peaks.items()}
    for row in rows:
        for contender in row["contenders"].values():
            contender["share_of_peak"] = digits(row["floor_gflop"] / (contender["seconds"] * max(peaks.values())), 3)
        row["contenders"]["reference"].pop("share_of_peak")
    repeats = f"median of {settings.repeats}, interleaved; fewer where a contender takes over 20 s in all"
    known = conditions("make bench") | {"shape": str(settings.shape)} | CONDITIONS
    known |= {
        "cells_timed": f"{settings.sample} of TransformerLens'",
        "repeats": repeats,
        "ready_seconds": digits(ready),
    }
    known |= {"matrix_peak_gflops": peaks}
    payload = {"conditions": known, "rows": rows, "memory": memory.measured(settings)}
    write(NAME, payload, quick=settings.quick)
    return others(settings, bridge=True, nnsight=True)


def _rows(settings: Settings) -> tuple[list[dict], float]:
    """The rows on TransformerLens 3.9, and the seconds to prepare a model for ours."""
    theirs = hooked_transformer(settings.shape)
    model, ready = peers.prepared(copy.deepcopy(theirs), settings.shape.name, peers.as_batch(settings.prompts))
    shape, pairs, reference = settings.shape, settings.prompts, Reference(settings.shape)

    def row(sweep: Sweep) -> dict:
        sample = sweep.sample(shape, pairs, settings.sample)

        def patching() -> Run:
            return peers.transformer_lens(theirs, shape, pairs, sweep=sweep, sample=sample)

        def stacked() -> Run:
            return peers.start_at_layer(theirs, shape, pairs, sweep=sweep)

        contenders = {"reference": reference.run, "TransformerLens": patching, "start_at_layer": stacked}
        return sweep_row(model, settings, sweep, others=contenders, baseline="TransformerLens")

    return [row(sweep) for sweep in HEADLINE], ready


def others(settings: Settings, *, bridge: bool, nnsight: bool) -> Path:
    """The peers that need their own process, added to the earlier results."""
    target = results(NAME, quick=settings.quick)
    payload = json.loads(target.read_text()) if target.exists() else {}
    if bridge:
        payload["bridge"] = child("benchmarks.bridge", *settings.arguments(), venv=".venv-tl4")
    if nnsight:
        payload["nnsight"] = child("benchmarks.nnsight_peer", *settings.arguments(), venv=".venv-nnsight")
    for name in ("bridge", "nnsight"):
        for row in payload.get(name, {}).get("rows", ()):
            _match(row, payload.get("rows", ()), name)
            show(row)
    return write(NAME, payload, quick=settings.quick)


def _match(row: dict, rows: Sequence[dict], name: str) -> None:
    """The time of a peer, rescaled to the first process by the reference pass that both timed."""
    same = [other["contenders"] for other in rows if other["sweep"] == row["sweep"]]
    if same:
        contenders = row["contenders"]
        ratio = contenders["reference"]["seconds"] / same[0]["reference"]["seconds"]
        row["reference_ratio"] = digits(ratio, 3)
        contenders[name]["matched_seconds"] = digits(contenders[name]["seconds"] / ratio)


def _differences(payload: object) -> list[float]:
    """All values of largest differences in a nested result."""
    if isinstance(payload, dict):
        differences = [value for name, value in payload.items() if name.startswith("largest_difference")]
        return differences + [error for value in payload.values() for error in _differences(value)]
    return [error for value in payload for error in _differences(value)] if isinstance(payload, list) else []


if __name__ == "__main__":
    main()
