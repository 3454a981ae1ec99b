"""Linear probes at every layer and position against a loop over scikit-learn's LogisticRegression, on one thread.

13 layers x 16 positions x 768 dimensions, 5,000 prompts, two classes. Two models with random weights and a smaller
trained model from the zoo. Ours runs the forward passes once, outside the timings; then it reads its store from disk,
splits, standardises, fits and scores. scikit-learn receives the activations of each cell in memory, raw and
standardised; some cells are timed and scaled to all. ``--quick`` uses a small shape. ``make bench-probes``.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformer_lens.model_bridge import TransformerBridge

import mechxai as mx
from benchmarks.machine import child, conditions, kib, one_thread, write
from benchmarks.shapes import GPT2_SMALL, Shape, hugging_face, one_token
from benchmarks.timing import digits
from mechxai.engine.activation_store import ActivationStore
from mechxai.methods.probes._lib import fitting, layer_probes, probe_run
from mechxai.methods.probes._lib.splits import split_of

NAME = "probes.json"
WIDTH, SHARE, WORDS = 16, 0.7, 400
LARGE = (138, 378, 447)  # dimensions of the residual stream with large values in GPT-2 small
ROUNDS, CELLS = 3, 5
CONDITIONS = {
    "labels": f"the half of {WORDS} words from which {SHARE:.0%} of a prompt's words are drawn",
    "scikit-learn": "LogisticRegression(max_iter=1000).fit and .score, a cell at a time, activations in memory",
    "scikit-learn, standardised": "the same behind StandardScaler",
    "ours": "mx.LinearProbes(pos=all 16, C=[1.0], control='none', random_model=False), with the store written before: "
    "reading, splitting, standardising, fitting, all scores and intervals",
    "ours, default": "the same with its default grid of four C, chosen on validation prompts, and three controls",
    "rows": f"{ROUNDS} rounds, interleaved; {CELLS} random cells of scikit-learn's in each, ours whole",
}


def main() -> None:
    """Measures in a subprocess and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small shape; committed results are not touched")
    parser.add_argument("--here", action="store_true", help="measure in this process and print JSON")
    arguments = parser.parse_args()
    shape = replace(GPT2_SMALL, n_layers=13, d_vocab=WORDS)
    if arguments.here:
        print(json.dumps(measured(shape.quick() if arguments.quick else shape, 400 if arguments.quick else 5000)))
        return
    measurements = child("benchmarks.probes", "--here", *(["--quick"] if arguments.quick else []))
    target = write(NAME, measurements, quick=arguments.quick)
    print(f"written to {target}", file=sys.stderr)
    for row in measurements.get("rows", [measurements]):
        print(json.dumps(row, indent=1))


def measured(shape: Shape, n_prompts: int) -> dict[str, Any]:
    """The rows of all models."""
    one_thread()
    warnings.simplefilter("ignore")
    rows = [
        _row(_model(shape, conditioned=conditioned), _dataset(n_prompts), what) for conditioned, what in _KINDS.items()
    ]
    zoo = mx.load("zoo/ioi", device="cpu")
    named = mx.tasks.subject_number(zoo, n=n_prompts, attractors=0)
    rows.append(_row(zoo, named, "zoo/ioi, trained: its own activations, number of the subject", [2, 3, "END"]))
    return {"conditions": conditions("make bench-probes") | {"shape": str(shape)} | CONDITIONS, "rows": rows}


_KINDS = {
    True: "weights that write as a trained model's do: variances fall as 1/k along random directions, and three "
    "dimensions are 30 times as large",
    False: "weights as drawn",
}


def _model(shape: Shape, *, conditioned: bool) -> mx.HookedModel:
    hf_model = hugging_face(shape)
    if conditioned:
        generator = torch.Generator().manual_seed(3)
        basis, _ = torch.linalg.qr(torch.randn(shape.d_model, shape.d_model, generator=generator))
        sizes = torch.arange(1, shape.d_model + 1) ** -0.5
        writes = basis * (sizes / sizes.square().mean().sqrt()) @ basis.T
        writes[:, [dim % shape.d_model for dim in LARGE]] *= 30
        stream = hf_model.transformer
        for weight in (stream.wte, stream.wpe, *(layer for h in stream.h for layer in (h.attn.c_proj, h.mlp.c_proj))):
            weight.weight.data = weight.weight.data @ writes
        hf_model.lm_head.weight = stream.wte.weight
    inner = TransformerBridge.boot_transformers("local", hf_model=hf_model, tokenizer=one_token()).eval()
    return mx.wrap(inner, name=shape.name)


def _row(model: mx.HookedModel, dataset: mx.ProbeDataset, what: str, pos: Any = tuple(range(WIDTH))) -> dict[str, Any]:
    positions, n_layers = list(pos), model.architecture.n_layers
    ours = mx.LinearProbes(pos=positions, C=[1.0], control="none", random_model=False)
    default = mx.LinearProbes(pos=positions, random_model=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        ours(model, dataset, execution=mx.Execution(cells=folder))
        first = time.perf_counter() - start
        stored = next(folder.glob("activations-*"))
        contenders = {"ours": ours, "ours, default": default}
        times: dict[str, list[float]] = {key: [] for key in (*contenders, "scikit-learn", "scikit-learn, standardised")}
        scores: dict[str, list[float]] = {key: [] for key in times}
        memory, data = 0, None
        for turn in range(ROUNDS):
            for key, probes in contenders.items():
                if key != "ours" and turn:
                    continue
                seconds, peak, scored = _ours(probes, model, dataset, folder)
                times[key].append(seconds)
                memory = max(memory, peak) if key == "ours" else memory
                data = scored if key == "ours" else data
                scores[key].append(float(scored["accuracy"].mean()))
            for layer, at in _cells(n_layers, len(positions), turn):
                x, y, part = _activations(stored, dataset, layer, positions[at])
                for key, make in (
                    ("scikit-learn", lambda: LogisticRegression(max_iter=1000)),
                    ("scikit-learn, standardised", _scaled),
                ):
                    seconds, score = _theirs(make, x, y, part)
                    times[key].append(seconds)
                    scores[key].append(score)
                scores.setdefault("ours, same cells", []).append(float(data["accuracy"][0, layer, at]))
        parts = _where(ours, model, dataset, folder)
    n_cells = n_layers * len(positions)
    whole = {key: (1 if key in contenders else n_cells) for key in times}
    seconds = {key: digits(statistics.mean(scored) * whole[key]) for key, scored in times.items()}
    gaps = [np.array(scores["ours, same cells"]) - np.array(scores[key]) for key in list(times)[2:]]
    return {
        "sweep": what,
        "cells": n_cells,
        "forward_seconds": digits(first - statistics.mean(times["ours"])),
        "seconds": seconds,
        "per_probe_ms": {key: digits(1000 * value / n_cells) for key, value in seconds.items()},
        "ratio": digits(seconds["scikit-learn"] / seconds["ours"], 3),
        "ratio_standardised": digits(seconds["scikit-learn, standardised"] / seconds["ours"], 3),
        "ratio_default": digits(seconds["scikit-learn"] / seconds["ours, default"], 3),
        "accuracy": {key: digits(statistics.mean(scored), 3) for key, scored in scores.items()},
        "mean_difference_points": [digits(100 * float(gap.mean()), 2) for gap in gaps],
        "largest_difference_points": [digits(100 * float(np.abs(gap).max()), 2) for gap in gaps],
        "peak_mib": round(memory / 1024),
        "where_ms": {key: digits(1000 * spent / n_cells, 3) for key, spent in parts.items()},
    }


def _dataset(n_prompts: int) -> mx.ProbeDataset:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (n_prompts,), generator=generator)
    same = torch.rand(n_prompts, WIDTH, generator=generator) < SHARE
    tokens = torch.randint(0, WORDS // 2, (n_prompts, WIDTH), generator=generator)
    half = torch.where(same, labels[:, None], 1 - labels[:, None])
    return mx.ProbeDataset.from_tokens(tokens + half * (WORDS // 2), labels)


def _ours(probes: mx.LinearProbes, model: mx.HookedModel, dataset: mx.ProbeDataset, folder: Path) -> Any:
    """Seconds, peak memory in KiB and scores, from the activation store that an earlier call wrote."""
    for piece in folder.glob("probes-*/*.safetensors"):
        piece.unlink()
    before = kib("VmRSS")
    start = time.perf_counter()
    result = probes(model, dataset, execution=mx.Execution(cells=folder))
    return time.perf_counter() - start, kib("VmHWM") - before, result.data


_PARTS = {
    "reading the store": (probe_run.ActivationStore, "read"),
    "gathering and standardising": (layer_probes, "activation_block"),
    "covariance": (fitting, "covariance"),
    "factorising": (fitting, "factors"),
    "descent": (fitting, "fit"),
    "scores and intervals": (layer_probes, "_test_scores"),
}


def _where(probes: mx.LinearProbes, model: mx.HookedModel, dataset: mx.ProbeDataset, folder: Path) -> dict[str, float]:
    """Seconds of each part of one more run, and of the rest."""
    spent = dict.fromkeys(_PARTS, 0.0)
    real = {key: getattr(*place) for key, place in _PARTS.items()}

    def timed(key: str) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            try:
                return real[key](*arguments, **keywords)
            finally:
                spent[key] += time.perf_counter() - start

        return call

    try:
        for key, (home, name) in _PARTS.items():
            setattr(home, name, timed(key))
        seconds, _, _ = _ours(probes, model, dataset, folder)
    finally:
        for key, (home, name) in _PARTS.items():
            setattr(home, name, real[key])
    return spent | {"the rest": seconds - sum(spent.values())}


def _cells(n_layers: int, n_positions: int, turn: int) -> list[tuple[int, int]]:
    drawn = np.random.default_rng(turn).choice(n_layers * n_positions, CELLS, replace=False)
    return [divmod(int(cell), n_positions) for cell in drawn]


def _activations(stored: Path, dataset: mx.ProbeDataset, layer: int, pos: Any) -> tuple[np.ndarray, np.ndarray, Any]:
    """The activations of a cell, labels and split, for the prompts that have the position."""
    split = split_of(dataset, 0)
    ordered, store = dataset.rows(split.order), ActivationStore.open(stored)
    at, present = ordered.layout.positions(pos)
    starts = ordered.lengths.cumsum(0) - ordered.lengths
    values = store.read(mx.Site("resid_post", layer))[(starts + at)[present]].numpy()
    ends = split.n_train, split.n_train + split.n_validation
    return values, ordered.labels[present].numpy(), tuple(int(present[:end].sum()) for end in ends)


def _scaled() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def _theirs(make: Callable[[], Any], x: np.ndarray, y: np.ndarray, part: tuple[int, int]) -> tuple[float, float]:
    start = time.perf_counter()
    fitted = make().fit(x[: part[0]], y[: part[0]])
    score = fitted.score(x[part[1] :], y[part[1] :])
    return time.perf_counter() - start, float(score)


if __name__ == "__main__":
    main()
