"""On a GPU: patching against TransformerLens 3.9 and hand-written batches, edges, bfloat16: ``make bench-gpu``.

GPT-2-small shape, random weights. The sweep of TransformerLens is timed on a random sample of its cells and scaled to
all; ours run in full. Every contender moves its values to the CPU, so that no kernel is still running when the clock is
read. ``--quick`` uses a small shape, and the CPU where there is no GPU.
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
from benchmarks.rows import options, parse_settings
from benchmarks.shapes import Prompts, Shape, prompts
from benchmarks.sweeps import MLP_OUT, RESID_PRE, Z_HEAD, Z_POS_HEAD, Sweep
from benchmarks.timing import Run, digits, interleaved, largest_difference, median

NAME = "gpu.json"
SETTINGS = ((16, 10, 1), (64, 58, 1), (16, 10, 32))  # tokens, first difference, prompts
CONDITIONS = {
    "arithmetic": "float32 without TF32, the default of torch; bfloat16 rows are marked",
    "TransformerLens": "timed on random cells and scaled, with its clean cache built once; on a separate object",
    "start_at_layer": "hand-written batches: a layer's cells stacked along the batch, from its cached input",
    "ours": "the full method: plan, both baselines, every cell, intervals; the first call, which checks the level, is "
    "not timed",
}


def main() -> None:
    """Measures everything and writes the results."""
    arguments = options(__doc__ or "").parse_args()
    settings = parse_settings(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not settings.quick:
        sys.exit("no CUDA device; --quick tries the script on the CPU")
    torch.set_grad_enabled(False)
    theirs = hooked_transformer(settings.shape).to(device)
    model = mx.wrap(copy.deepcopy(theirs), name=settings.shape.name)
    known = conditions("make bench-gpu") | {"shape": str(settings.shape)} | CONDITIONS
    known["machine"] = torch.cuda.get_device_name(0) if device == "cuda" else known["machine"]
    known["repeats"] = f"median of {settings.repeats}, interleaved; {settings.sample} TransformerLens cells"
    rows = []
    for width, first, n_prompts in SETTINGS:
        on_device = _on(prompts(settings.shape, width, first, n_prompts), device)
        for sweep in (RESID_PRE, MLP_OUT, Z_HEAD, Z_POS_HEAD):
            rows.append(
                _row(
                    model,
                    theirs,
                    settings.shape,
                    on_device,
                    sweep=sweep,
                    sample=settings.sample,
                    repeats=settings.repeats,
                )
            )
            print(rows[-1]["sweep"], rows[-1]["ratio"], flush=True)
    payload = {"conditions": known, "rows": rows, "edges": _edges(model, settings.shape, settings.repeats, device)}
    payload["bfloat16"] = _bfloat16(theirs, settings.shape, device)
    print(f"written to {write(NAME, payload, quick=settings.quick)}")


def _on(pairs: Prompts, device: str) -> Prompts:
    moved = {name: getattr(pairs, name).to(device) for name in ("clean", "corrupted", "answers", "wrong")}
    return replace(pairs, **moved)


def _row(  # noqa: PLR0913 - what is measured
    model: mx.HookedModel, theirs: Any, shape: Shape, pairs: Prompts, *, sweep: Sweep, sample: int, repeats: int
) -> dict[str, Any]:
    batch = peers.as_batch(pairs)
    cells = sweep.sample(shape, pairs, sample)
    level = peers.ours(model, batch, sweep).note
    contenders = {
        "TransformerLens": lambda: peers.transformer_lens(theirs, shape, pairs, sweep=sweep, sample=cells),
        "start_at_layer": lambda: peers.start_at_layer(theirs, shape, pairs, sweep=sweep),
        "ours": lambda: peers.ours(model, batch, sweep),
    }
    runs = interleaved(contenders, repeats)
    return {
        "sweep": f"{sweep.name}: {len(pairs)} prompts of {pairs.width} tokens, different from {pairs.first}",
        "ran": level,
        "contenders": {name: summary(timings) for name, timings in runs.items()},
        "ratio": digits(median(runs["TransformerLens"]) / median(runs["ours"]), 3),
        "largest_difference": largest_difference(runs["ours"], runs["TransformerLens"]),
    }


def _edges(model: mx.HookedModel, shape: Shape, repeats: int, device: str) -> dict[str, Any]:
    """Scores of all edges and their exact effects; the scores are compared with the CPU."""
    pairs = prompts(shape, 16, 10, 1)
    batch = peers.as_batch(pairs)
    kinds = {kind: mx.EdgeAttribution(kind) for kind in ("eap", "eap_ig_inputs", "eap_ig_activations")}
    results: dict[str, mx.Result] = {}

    def timed(name: str, method: Any) -> Run:
        start = time.perf_counter()
        results[name] = method(model, batch)
        return Run(time.perf_counter() - start, time.perf_counter() - start)

    for name, method in kinds.items():
        timed(name, method)
    runs = interleaved({name: lambda name=name: timed(name, kinds[name]) for name in kinds}, repeats)
    start = time.perf_counter()
    exact = mx.EdgePatching()(model, batch)
    measurements: dict[str, Any] = {name: summary(every) for name, every in runs.items()}
    measurements["exact"] = {"seconds": digits(time.perf_counter() - start), "edges": exact.data.sizes["edge"]}
    if device == "cuda":
        on_cpu = mx.wrap(hooked_transformer(shape), name=shape.name)
        apart = kinds["eap"](on_cpu, batch).data["value"] - results["eap"].data["value"]
        measurements["largest_difference_from_cpu"] = float(np.abs(apart).max())
        measurements["peak_mib"] = torch.cuda.max_memory_allocated() // 2**20
    return measurements


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
