"""The logit lens at all layers and positions: ours against that of TransformerLens 4, on one bridge and one thread.

GPT-2-small shape, random weights, 4 prompts of 64 tokens. TransformerLens computes either targets or top tokens in a
call, and no KL divergence; ours computes all of these in one call. ``--quick`` uses a small shape. ``make bench-lens``.
"""

import argparse
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

import mechxai as mx
from benchmarks.machine import Reference, child, conditions, one_thread, summary, write
from benchmarks.shapes import GPT2_SMALL, Shape, hugging_face, one_token, prompts
from benchmarks.timing import Run, interleaved, largest_difference, median

NAME = "lens.json"
PROMPTS, WIDTH, K = 4, 64, 5
CONDITIONS = {
    "prompts": f"{PROMPTS} of {WIDTH} tokens, 13 layers: {PROMPTS * WIDTH * 13:,} readouts",
    "TransformerLens, targets": "tools.analysis.logit_lens(targets=...): log-probability and rank of the next token, "
    "entropy",
    "TransformerLens, targets and top": f"with a second call on the same cache for the top {K} tokens, since one call "
    "computes either",
    "ours": f"mx.LogitLens: the same, the top {K} tokens and the KL divergence from the output, and intervals",
    "repeats": "median of 5, interleaved",
}


def main() -> None:
    """Measures in the environment of TransformerLens 4 and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small shape; committed results are not touched")
    parser.add_argument("--here", action="store_true", help="measure in this process and print JSON")
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(measured(GPT2_SMALL.quick() if arguments.quick else GPT2_SMALL)))
        return
    measurements = child("benchmarks.lens", "--here", *(["--quick"] if arguments.quick else []), venv=".venv-tl4")
    target = write(NAME, measurements, quick=arguments.quick)
    print(f"written to {target}", file=sys.stderr)
    for row in measurements.get("rows", [measurements]):
        print(json.dumps(row, indent=1))


def measured(shape: Shape) -> dict[str, Any]:
    """The times of all contenders, and the difference of their values."""
    from transformer_lens.model_bridge import TransformerBridge  # noqa: PLC0415 - an extra environment
    from transformer_lens.tools.analysis.logit_lens import logit_lens  # noqa: PLC0415

    one_thread()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    inner = TransformerBridge.boot_transformers("local", hf_model=hugging_face(shape), tokenizer=one_token()).eval()
    pairs = prompts(shape, WIDTH, 10, PROMPTS)
    model = mx.wrap(inner, name=shape.name)
    batch = mx.ContrastBatch.from_tokens(pairs.clean, pairs.corrupted, pairs.answers, pairs.wrong)
    targets = torch.cat([pairs.clean[:, 1:], pairs.answers[:, None]], 1)

    def theirs(*, top: bool) -> Run:
        start = time.perf_counter()
        _, cache = inner.run_with_cache(pairs.clean, names_filter=lambda name: "resid" in name or "embed" in name)
        read = logit_lens(cache, positions=None, targets=targets, return_type="log_probs")
        if top:
            logit_lens(cache, positions=None, top_k=K, return_type="log_probs")
        seconds = time.perf_counter() - start
        return Run(seconds, seconds, _numbered(read.values[..., 0]))

    def ours() -> Run:
        start = time.perf_counter()
        read = mx.LogitLens(target="next", k=K)(model, batch)
        seconds = time.perf_counter() - start
        return Run(seconds, seconds, _numbered(torch.tensor(read.data["target_logprob"].values).transpose(0, 1)))

    contenders: dict[str, Callable[[], Run]] = {
        "reference": Reference(shape).run,
        "TransformerLens, targets": lambda: theirs(top=False),
        "TransformerLens, targets and top": lambda: theirs(top=True),
        "ours": ours,
    }
    for contender in contenders.values():
        contender()
    runs = interleaved(contenders, 5)
    row = {
        "sweep": "logit lens",
        "cells": PROMPTS * WIDTH * (shape.n_layers + 1),
        "contenders": {name: summary(timings) for name, timings in runs.items()},
        "ratio": round(median(runs["TransformerLens, targets"]) / median(runs["ours"]), 2),
        "ratio_with_top": round(median(runs["TransformerLens, targets and top"]) / median(runs["ours"]), 2),
        "largest_difference": largest_difference(runs["ours"], runs["TransformerLens, targets"]),
    }
    return {"conditions": conditions("make bench-lens") | {"shape": str(shape)} | CONDITIONS, "rows": [row]}


def _numbered(values: torch.Tensor) -> dict[tuple[int, ...], float]:
    """Every seventh log-probability of ``[layer, prompt, pos]``, by index."""
    flat = values.reshape(-1)
    return {(at,): float(flat[at]) for at in range(0, len(flat), 7)}


if __name__ == "__main__":
    main()
