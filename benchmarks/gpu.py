"""On a GPU: patching against TransformerLens 3.9 and hand-written batches, edges, bfloat16: ``make bench-gpu``.

GPT-2-small shape, random weights. TransformerLens' own function is timed on a random sample of its cells and scaled to
all; ours run whole. Every contender gives its values to the CPU, so no kernel is left running when a clock is read.
``--quick`` tries it on a cut-down shape, and on the CPU where there is no GPU.
"""

import copy
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

import mechxai as mx
from benchmarks import peers
from benchmarks.hooked import hooked_transformer
from benchmarks.machine import conditions, summary, write
from benchmarks.rows import options, settings
from benchmarks.shapes import Prompts, Shape, prompts
from benchmarks.sweeps import MLP_OUT, RESID_PRE, Z_HEAD, Z_POS_HEAD, Sweep
from benchmarks.timing import Run, digits, interleaved, largest_difference, median

NAME = "gpu.json"
SETTINGS = ((16, 10, 1), (64, 58, 1), (16, 10, 32))  # tokens, first difference, prompts
CONDITIONS = {
    "arithmetic": "float32 without TF32, as torch has it; bfloat16 rows say so",
    "TransformerLens": "timed on random cells and scaled, with its clean cache made once; on an object of its own",
    "start_at_layer": "hand-written batches: a layer's cells stacked along the batch, from its cached input on",
    "ours": "the whole method: plan, both baselines, every cell, intervals; a first call, which checks the level, is "
    "not timed",
}


def main() -> None:
    """Measures, and writes what was found."""
    given = options(__doc__ or "").parse_args()
    asked = settings(given)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not asked.quick:
        sys.exit("no CUDA device; --quick tries the script on the CPU")
    torch.set_grad_enabled(False)
    theirs = hooked_transformer(asked.shape).to(device)
    model = mx.wrap(copy.deepcopy(theirs), name=asked.shape.name)
    known = conditions("make bench-gpu") | {"shape": str(asked.shape)} | CONDITIONS
    known["machine"] = torch.cuda.get_device_name(0) if device == "cuda" else known["machine"]
    known["repeats"] = f"median of {asked.repeats}, interleaved; {asked.sample} cells of TransformerLens'"
    rows = []
    for width, first, n_prompts in SETTINGS:
        on_device = _on(prompts(asked.shape, width, first, n_prompts), device)
        for sweep in (RESID_PRE, MLP_OUT, Z_HEAD, Z_POS_HEAD):
            rows.append(
                _row(model, theirs, asked.shape, on_device, sweep=sweep, sample=asked.sample, repeats=asked.repeats)
            )
            print(rows[-1]["sweep"], rows[-1]["ratio"], flush=True)
    payload = {"conditions": known, "rows": rows, "edges": _edges(model, asked.shape, asked.repeats, device)}
    payload["bfloat16"] = _bfloat16(theirs, asked.shape, device)
    print(f"written to {write(NAME, payload, quick=asked.quick)}")


def _on(given: Prompts, device: str) -> Prompts:
    moved = {name: getattr(given, name).to(device) for name in ("clean", "corrupted", "answers", "wrong")}
    return replace(given, **moved)


def _row(  # noqa: PLR0913 - what is measured
    model: mx.HookedModel, theirs: Any, shape: Shape, given: Prompts, *, sweep: Sweep, sample: int, repeats: int
) -> dict[str, Any]:
    batch = peers.as_batch(given)
    cells = sweep.sample(shape, given, sample)
    level = peers.ours(model, batch, sweep).note
    contenders = {
        "TransformerLens": lambda: peers.transformer_lens(theirs, shape, given, sweep=sweep, sample=cells),
        "start_at_layer": lambda: peers.start_at_layer(theirs, shape, given, sweep=sweep),
        "ours": lambda: peers.ours(model, batch, sweep),
    }
    runs = interleaved(contenders, repeats)
    return {
        "sweep": f"{sweep.name}: {len(given)} prompts of {given.width} tokens, different from {given.first}",
        "ran": level,
        "contenders": {name: summary(found) for name, found in runs.items()},
        "ratio": digits(median(runs["TransformerLens"]) / median(runs["ours"]), 3),
        "largest_difference": largest_difference(runs["ours"], runs["TransformerLens"]),
    }


def _edges(model: mx.HookedModel, shape: Shape, repeats: int, device: str) -> dict[str, Any]:
    """Scores of all edges, and their exact effects; the scores against those on the CPU."""
    given = prompts(shape, 16, 10, 1)
    batch = peers.as_batch(given)
    kinds = {kind: mx.EdgeAttribution(kind) for kind in ("eap", "eap_ig_inputs", "eap_ig_activations")}
    kept: dict[str, mx.Result] = {}

    def timed(name: str, method: Any) -> Run:
        start = time.perf_counter()
        kept[name] = method(model, batch)
        return Run(time.perf_counter() - start, time.perf_counter() - start)

    for name, method in kinds.items():
        timed(name, method)
    runs = interleaved({name: lambda name=name: timed(name, kinds[name]) for name in kinds}, repeats)
    start = time.perf_counter()
    exact = mx.EdgePatching()(model, batch)
    found: dict[str, Any] = {name: summary(every) for name, every in runs.items()}
    found["exact"] = {"seconds": digits(time.perf_counter() - start), "edges": exact.data.sizes["edge"]}
    if device == "cuda":
        on_cpu = mx.wrap(hooked_transformer(shape), name=shape.name)
        apart = kinds["eap"](on_cpu, batch).data["value"] - kept["eap"].data["value"]
        found["largest_difference_from_cpu"] = float(np.abs(apart).max())
        found["peak_mib"] = torch.cuda.max_memory_allocated() // 2**20
    return found


def _bfloat16(theirs: Any, shape: Shape, device: str) -> dict[str, Any]:
    """One sweep in bfloat16, and its noise floor."""
    model = mx.wrap(copy.deepcopy(theirs).to(torch.bfloat16), name=shape.name)
    batch = peers.as_batch(_on(prompts(shape, 16, 10, 32), device))
    method = mx.ActivationPatching(RESID_PRE.site, RESID_PRE.over)
    method(model, batch)
    start = time.perf_counter()
    result = method(model, batch)
    seconds = digits(time.perf_counter() - start)
    return {
        "sweep": f"{RESID_PRE.name}, 32 prompts",
        "seconds": seconds,
        "noise_floor": float(result.data["noise_floor"]),
    }


if __name__ == "__main__":
    main()
