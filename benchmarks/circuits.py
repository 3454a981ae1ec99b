"""Edge scores against three packages on one thread, and estimates against exact effects on the bundled models.

GPT-2-small shape, random weights, one prompt pair of 16 tokens that differ from position 10 on. TransformerLens scores
an edge by position, so its scores are summed over positions for the comparison. No package patches all edges exactly;
for reference, one forward pass of TransformerLens per edge is extrapolated from a single pass. Runs in the environment
of TransformerLens 4: ``make bench-circuits``; ``--quick`` uses a small shape. eap-ig and auto-circuit need older
libraries and run in processes of their own (`circuit_peers`), with a reference pass that measures the load of the
machine; a package without its environment is omitted.
"""

import argparse
import json
import logging
import sys
import time
import warnings
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

import mechxai as mx
from benchmarks.circuit_peers import PEERS
from benchmarks.machine import Reference, child, conditions, one_thread, results, summary, write
from benchmarks.shapes import GPT2_SMALL, Shape, hugging_face, one_token, prompts
from benchmarks.timing import Run, digits, interleaved, median

NAME = "circuits.json"
WIDTH, FIRST = 16, 10
TOP = 0.02  # of the edges
ROUNDING = 1e-5  # of the largest score
CONDITIONS = {
    "prompt": f"1 pair of {WIDTH} tokens, different from position {FIRST} on; the logit difference of two tokens",
    "TransformerLens": "tools.analysis.attribution_patching.attribution_patch, granularity edge, on the same bridge",
    "repeats": "median of 5, interleaved; exact edges once; packages in separate processes, median of 3, "
    "scaled by the ratio of the reference passes",
    "agreement": "absolute scores of all edges, means over prompts, against EdgePatching (noise); top: the highest "
    f"{TOP:.0%} of the edges, at least 5; below {ROUNDING:g} of the largest counts as 0",
}
TASKS = (
    ("zoo/handmade-induction", "induction"),
    ("zoo/handmade-ioi", "ioi"),
    ("zoo/planted-ioi", "ioi"),
    ("zoo/interchange-ioi", "ioi"),
    ("zoo/induction", "induction"),
    ("zoo/ioi", "ioi"),
    ("zoo/ioi", "greater_than"),
    ("zoo/ioi", "sva"),
)
ESTIMATES = {
    "EAP": mx.EdgeAttribution("eap"),
    "both ends": mx.EdgeAttribution("clean_corrupted"),
    "EAP-IG, 5 steps": mx.EdgeAttribution("eap_ig_inputs"),
    "EAP-IG of activations, 5 steps": mx.EdgeAttribution("eap_ig_activations"),
}
HEADS = ("q", "k", "z")  # sites of heads whose patching is estimated


def main() -> None:
    """Measures everything and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small shape; committed results are not touched")
    quick = parser.parse_args().quick
    one_thread()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    measurements = {
        "conditions": conditions("make bench-circuits"),
        "rows": speed(GPT2_SMALL.quick() if quick else GPT2_SMALL, quick=quick),
        "agreement": [agreement(*case) for case in TASKS],
        "heads": [head_agreement(*case, site) for case in TASKS for site in HEADS],
    }
    measurements["conditions"] |= {"shape": str(GPT2_SMALL.quick() if quick else GPT2_SMALL)} | CONDITIONS
    target = write(NAME, measurements, quick=quick)
    print(f"written to {target}; {results(NAME, quick=quick)}", file=sys.stderr)
    print(json.dumps(measurements["rows"], indent=1))


def speed(shape: Shape, *, quick: bool) -> list[dict[str, Any]]:
    """First-order scores and exact effects of every edge."""
    from transformer_lens.model_bridge import TransformerBridge  # noqa: PLC0415 - heavy
    from transformer_lens.tools.analysis.attribution_patching import (  # noqa: PLC0415 - version 4 has edges
        EdgeAttributionConfig,
        attribution_patch,
    )

    bridge = TransformerBridge.boot_transformers("local", hf_model=hugging_face(shape), tokenizer=one_token()).eval()
    model = mx.wrap(bridge, name=shape.name)
    pairs = prompts(shape, WIDTH, FIRST, 1)
    batch = mx.ContrastBatch.from_tokens(pairs.clean, pairs.corrupted, pairs.answers, pairs.wrong)
    right, wrong = int(pairs.answers), int(pairs.wrong)
    outputs: dict[str, Any] = {}

    def theirs() -> Run:
        start = time.perf_counter()
        with torch.enable_grad():
            outputs["theirs"] = attribution_patch(
                bridge,
                pairs.clean,
                pairs.corrupted,
                lambda logits: logits[0, -1, right] - logits[0, -1, wrong],
                EdgeAttributionConfig("edge"),
            )
        seconds = time.perf_counter() - start
        return Run(seconds, seconds)

    def ours(method: Any) -> Run:
        start = time.perf_counter()
        outputs[method.kind] = method(model, batch)
        seconds = time.perf_counter() - start
        return Run(seconds, seconds)

    eap, inputs = mx.EdgeAttribution("eap", direction="denoise"), mx.EdgeAttribution("eap_ig_inputs")
    ours(eap)
    contenders = {
        "reference": Reference(shape).run,
        "TransformerLens, EAP": theirs,
        "ours, EAP": lambda: ours(eap),
        "ours, EAP-IG, 5 steps": lambda: ours(inputs),
    }
    runs = interleaved(contenders, 5, long=60)
    first = {label: summary(timings) for label, timings in runs.items()}
    packages = {name: package(name, model, batch, quick=quick) for name in PEERS}
    for name, measurement in packages.items():
        for label, seconds in measurement.get("seconds", {}).items():
            if label != "reference":
                scaled = seconds / measurement["seconds"]["reference"] * median(runs["reference"])
                first[f"{name}, {label}"] = {"seconds": digits(scaled), "as_measured": digits(seconds)}
    start = time.perf_counter()
    exact = mx.EdgePatching()(model, batch)
    exact_seconds = time.perf_counter() - start
    start = time.perf_counter()
    bridge(pairs.clean)
    one_pass = time.perf_counter() - start
    return [
        {
            "sweep": f"first-order scores of {exact.data.sizes['edge']:,} edges",
            "contenders": first,
            "ratio": round(median(runs["TransformerLens, EAP"]) / median(runs["ours, EAP"]), 1),
            "largest_difference": _apart(outputs["theirs"], outputs["eap"]),
            "packages": packages,
        },
        {
            "sweep": f"exact effects of {exact.data.sizes['edge']:,} edges",
            "seconds": digits(exact_seconds),
            "one_forward_each": digits(one_pass * exact.data.sizes["edge"]),
            "cost": exact.info.cost,
        },
    ]


def package(name: str, model: Any, batch: Any, *, quick: bool) -> dict[str, Any]:
    """Seconds of a package and the difference of its scores from ours, or the reason for its omission."""
    target = results(f"scores-{name}.json", quick=True)
    measurement = child(
        "benchmarks.circuit_peers", name, str(target), *(["--quick"] if quick else []), venv=f".venv-{name}"
    )
    if "left_out" in measurement:
        return measurement
    scores = json.loads(target.read_text())
    same = {
        "EAP": mx.EdgeAttribution("eap"),
        "EAP-IG, 5 steps": mx.EdgeAttribution(
            "eap_ig_inputs", rule="left"
        ),  # its integration points start at the corrupted run
    }
    measurement["largest_difference"] = {}
    for label, theirs in scores.items():
        way = label.removesuffix(", weights frozen")
        if way in same:
            ours = same[way](model, batch).data["value"].to_series()
            measurement["largest_difference"][label] = max(abs(theirs[edge] - score) for edge, score in ours.items())
            measurement["edges"] = len(ours)
    return measurement


def _apart(theirs: Any, ours: mx.Result) -> float:
    """The largest difference of scores, with those of TransformerLens summed over positions."""
    total: dict[tuple[str, str], float] = {}
    for (src, dest), score in theirs.edge_scores.items():
        total[_name(src), _name(dest)] = total.get((_name(src), _name(dest)), 0.0) + score
    ends = zip(ours.data["src"].values, ours.data["dest"].values, strict=True)
    return max(abs(total[edge] - value) for edge, value in zip(ends, ours.data["value"].values, strict=True))


def _name(node: Any) -> str:
    if node.kind in ("embed", "logits"):
        return node.kind
    if node.kind.startswith("mlp"):
        return f"m{node.layer}"
    return f"a{node.layer}.h{node.head}" + ("" if node.kind == "attn_head_out" else f".{node.kind[0]}")


def agreement(name: str, task: str) -> dict[str, Any]:
    """Agreement of the estimates with the exact effect of every edge."""
    model = mx.load(name, device="cpu")
    batch = getattr(mx.tasks, task)(model, n=16)
    exact = _absolute_scores(mx.EdgePatching(), model, batch)
    top = max(5, round(TOP * len(exact)))
    highest = set(np.argsort(-exact)[:top].tolist())
    estimates = {}
    for label, method in ESTIMATES.items():
        scores = _absolute_scores(method, model, batch)
        shared = len(highest & set(np.argsort(-scores)[:top].tolist())) / top
        estimates[label] = {"spearman": round(float(spearmanr(scores, exact).statistic), 3), "top": round(shared, 3)}
    return {"model": name, "task": task, "edges": len(exact), "prompts": len(batch), "estimates": estimates}


def head_agreement(name: str, task: str, site: str) -> dict[str, Any]:
    """Agreement of attribution patching and AtP* with the exact effect of patching each head."""
    model = mx.load(name, device="cpu")
    batch = getattr(mx.tasks, task)(model, n=16)
    over = ("layer", "head")
    patched = mx.ActivationPatching(site, over)(model, batch).data
    exact = (patched["per_example"] - patched["baseline_corrupted"]).mean("prompt").transpose(*over).values.ravel()
    ways = {"AtP": {}, "AtP*": {"grad_drop": True, "qk_fix": site != "z"}}
    estimates = {}
    for label, settings in ways.items():
        scores = mx.AttributionPatching(site, over, **settings)(model, batch).data["value"].values.ravel()
        estimates[label] = round(float(spearmanr(_without_rounding(scores), _without_rounding(exact)).statistic), 3)
    return {"model": name, "task": task, "site": site, "heads": len(exact), "estimates": estimates}


def _without_rounding(values: np.ndarray) -> np.ndarray:
    """Absolute values, with rounding errors set to zero."""
    sizes = np.abs(values)
    return np.where(sizes < ROUNDING * sizes.max(), 0.0, sizes)


def _absolute_scores(method: Any, model: Any, batch: Any) -> np.ndarray:
    """Absolute scores, with rounding errors set to zero, so that edges without effect are tied."""
    return _without_rounding(method(model, batch).data["value"].values)


if __name__ == "__main__":
    main()
