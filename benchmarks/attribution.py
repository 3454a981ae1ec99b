"""Token attribution against Captum, INSEQ and SHAP, and attention against Hugging Face, on one thread.

GPT-2-small shape, random weights, one prompt of 32 tokens, the logit difference at its end. On models with hand-set
weights and on a classifier of reviews, the benchmark also measures whether each method finds the tokens that are known
to matter. ``--quick`` uses a small shape; ``--only inseq truth`` repeats some parts and keeps the other results. INSEQ
is compared where it is installed; ``make bench-attribution`` uses an environment that has it.
"""

import argparse
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import mechxai as mx
from benchmarks.machine import Reference, conditions, one_thread, results, summary, write
from benchmarks.shapes import GPT2_SMALL, Prompts, Shape, hugging_face, one_token, prompts
from benchmarks.timing import Run, interleaved, largest_difference, median

NAME = "attribution.json"
WIDTH, STEPS, SAMPLES = 32, 50, 2000
PARTS = ("integrated", "inseq", "kernel", "occlusion", "attention")
BATCHES = (8, 32)  # batch sizes of the peers; the faster one counts
CONDITIONS = {
    "prompt": f"1 of {WIDTH} tokens; the logit difference of two tokens at its end; the baseline is one fixed token",
    "Captum, IG": f"LayerIntegratedGradients on Hugging Face's model, {STEPS} steps, internal_batch_size {BATCHES}",
    "INSEQ": f"load_model(model, 'integrated_gradients').attribute(..., attributed_fn='logit', {STEPS} steps, "
    f"internal_batch_size {BATCHES})",
    "SHAP": f"KernelExplainer, {SAMPLES} samples, no L1, one call of Hugging Face's model per {BATCHES} rows",
    "SHAP, last logits": "the same with logits_to_keep=1",
    "Captum, KernelShap": f"{SAMPLES} samples, logits_to_keep=1, perturbations_per_eval {BATCHES[-1]}, and 1, its "
    "default (a tenth of the samples, scaled); it draws other samples, so its values are not compared",
    "Captum, ablation": f"FeatureAblation, logits_to_keep=1, perturbations_per_eval {BATCHES}",
    "attention": "16 prompts of 128 tokens, every layer; model.cache against output_attentions=True (eager)",
    "repeats": "median of 3, interleaved; contenders of over 20 s run once",
}
TRUTHS = (
    ("zoo/handmade-ioi", "ioi", ("IO", "S1", "S2")),
    ("zoo/handmade-induction", "induction", ("FIRST", "PREVIOUS", "END")),
    ("zoo/sentiment", "reviews", ("OPINION", "NEGATION")),
)


def main() -> None:
    """Measures the comparisons and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small shape; committed results are not touched")
    parser.add_argument("--only", nargs="+", choices=[*PARTS, "truth"], help="parts to measure; the other results stay")
    arguments = parser.parse_args()
    quick, only = arguments.quick, arguments.only or [*PARTS, "truth"]
    measurements = measured(GPT2_SMALL.quick() if quick else GPT2_SMALL, 300 if quick else SAMPLES, only)
    if arguments.only and not quick:
        measurements = merged_results(measurements)
    target = write(NAME, measurements, quick=quick)
    print(f"written to {target}", file=sys.stderr)
    for row in measurements["rows"]:
        print(json.dumps(row, indent=1))


def merged_results(measurements: dict[str, Any]) -> dict[str, Any]:
    """The new results, completed with the earlier results of the parts that were not repeated."""
    before = json.loads(results(NAME, quick=False).read_text(encoding="utf-8"))
    now = {row["sweep"]: row for row in measurements["rows"]}
    rows = [now.pop(row["sweep"], row) for row in before["rows"]]
    return {**measurements, "rows": [*rows, *now.values()], "truth": measurements["truth"] or before["truth"]}


def measured(shape: Shape, samples: int, only: Sequence[str]) -> dict[str, Any]:
    """The results of the chosen parts."""
    from transformer_lens.model_bridge import TransformerBridge  # noqa: PLC0415 - heavy

    one_thread()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    hf = hugging_face(shape)
    pairs = prompts(shape, WIDTH, 10, 1)
    bridge = TransformerBridge.boot_transformers("local", hf_model=hugging_face(shape), tokenizer=one_token()).eval()
    model = mx.wrap(bridge, name=shape.name)
    batch = mx.ContrastBatch.from_tokens(pairs.clean, pairs.corrupted, pairs.answers, pairs.wrong)
    both = (pairs, batch)
    parts = {
        "integrated": lambda: _integrated(shape, hf, model, both),
        "inseq": lambda: _inseq(shape, hf, model, both),
        "kernel": lambda: _kernel(shape, hf, model, both, samples),
        "occlusion": lambda: _occlusion(shape, hf, model, both),
        "attention": lambda: _attention(shape, hf, model),
    }
    chosen = [name for name in PARTS if name in only and (name != "inseq" or find_spec("inseq"))]
    rows = [parts[name]() for name in chosen]
    return {
        "conditions": conditions("make bench-attribution") | {"shape": str(shape)} | CONDITIONS,
        "rows": rows,
        "truth": [_truth(*case) for case in TRUTHS] if "truth" in only else [],
    }


Given = tuple[Prompts, mx.ContrastBatch]


def _integrated(shape: Shape, hf: Any, model: Any, both: Given) -> dict[str, Any]:
    from captum.attr import LayerIntegratedGradients  # noqa: PLC0415 - heavy

    pairs, batch = both
    answer, wrong = int(pairs.answers), int(pairs.wrong)

    def forward(ids: torch.Tensor) -> torch.Tensor:
        last = hf(ids).logits[:, -1]
        return last[:, answer] - last[:, wrong]

    captum = LayerIntegratedGradients(forward, hf.transformer.wte)
    away = torch.zeros_like(pairs.clean)

    def theirs(at_once: int) -> Run:
        start = time.perf_counter()
        with torch.enable_grad():
            attributions = captum.attribute(pairs.clean, away, n_steps=STEPS, internal_batch_size=at_once)
        return _run(start, attributions.sum(-1)[0].detach())

    def ours() -> Run:
        start = time.perf_counter()
        result = mx.IntegratedGradients(n_steps=STEPS, max_steps=STEPS)(model, batch)
        return _run(start, torch.tensor(result.data["value"].values[0]))

    peers = {f"Captum, {n} at once": lambda n=n: theirs(n) for n in BATCHES}
    return _compared(f"integrated gradients, {STEPS} steps", shape, peers, ours, 3)


def _inseq(shape: Shape, hf: Any, model: Any, both: Given) -> dict[str, Any]:
    """Integrated gradients of one logit, which INSEQ supports without a custom step function."""
    import inseq  # noqa: PLC0415 - an extra environment

    pairs, batch = both
    names = ["[pad]", "[end]", *(f"w{number}" for number in range(2, hf.config.vocab_size))]
    core = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="[pad]"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"unk_token": "[pad]", "pad_token": "[pad]", "bos_token": "[end]", "eos_token": "[end]"}
    wrapped = inseq.load_model(
        hf, "integrated_gradients", tokenizer=PreTrainedTokenizerFast(tokenizer_object=core, **special)
    )
    text = " ".join(names[token] for token in pairs.clean[0].tolist())
    whole = f"{text} {names[int(pairs.answers)]}"
    quiet = {"show_progress": False, "pretty_progress": False}

    def theirs(at_once: int) -> Run:
        start = time.perf_counter()
        output = wrapped.attribute(
            text, whole, n_steps=STEPS, internal_batch_size=at_once, attributed_fn="logit", **quiet
        )
        return _run(start, output.sequence_attributions[0].target_attributions.sum(-1)[:WIDTH, 0])

    def ours() -> Run:
        start = time.perf_counter()
        result = mx.IntegratedGradients(metric="logit", n_steps=STEPS, max_steps=STEPS)(model, batch)
        return _run(start, torch.tensor(result.data["value"].values[0]))

    peers = {f"INSEQ, {n} at once": lambda n=n: theirs(n) for n in BATCHES}
    return _compared(f"integrated gradients of a logit, {STEPS} steps", shape, peers, ours, 3)


def _kernel(shape: Shape, hf: Any, model: Any, both: Given, samples: int) -> dict[str, Any]:
    import shap  # noqa: PLC0415 - heavy
    from captum.attr import KernelShap  # noqa: PLC0415

    pairs, batch = both
    answer, wrong = int(pairs.answers), int(pairs.wrong)
    away = torch.zeros_like(pairs.clean)

    def scores(ids: torch.Tensor, keep: int) -> torch.Tensor:
        last = hf(ids, **({"logits_to_keep": keep} if keep else {})).logits[:, -1]
        return last[:, answer] - last[:, wrong]

    def by_shap(at_once: int, keep: int) -> Run:
        def function(present: np.ndarray) -> np.ndarray:
            there = torch.from_numpy(present > 0.5)
            ids = torch.where(there, pairs.clean, away)
            return torch.cat([scores(part, keep) for part in ids.split(at_once)]).double().numpy()

        start = time.perf_counter()
        np.random.seed(0)  # noqa: NPY002 - what SHAP draws from
        explainer = shap.KernelExplainer(function, np.zeros((1, WIDTH)))
        values = explainer.shap_values(np.ones((1, WIDTH)), nsamples=samples, l1_reg=False, silent=True)
        return _run(start, torch.from_numpy(values[0]))

    def by_captum(at_once: int) -> Run:
        share = 1.0 if at_once > 1 else 0.1
        start = time.perf_counter()
        torch.manual_seed(0)
        captum = KernelShap(lambda ids: scores(ids, 1))
        captum.attribute(pairs.clean, away, n_samples=int(share * samples), perturbations_per_eval=at_once)
        seconds = time.perf_counter() - start
        return Run(seconds / share, seconds)

    def ours() -> Run:
        start = time.perf_counter()
        result = mx.KernelShap(n_samples=samples)(model, batch)
        return _run(start, torch.tensor(result.data["value"].values[0]))

    peers: dict[str, Callable[[], Run]] = {f"SHAP, {n} at once": lambda n=n: by_shap(n, 0) for n in BATCHES}
    peers |= {f"SHAP, last logits, {n} at once": lambda n=n: by_shap(n, 1) for n in BATCHES}
    peers |= {f"Captum, KernelShap, {n} at once": lambda n=n: by_captum(n) for n in (1, BATCHES[-1])}
    return _compared(f"KernelShap, {samples} samples", shape, peers, ours, 3)


def _occlusion(shape: Shape, hf: Any, model: Any, both: Given) -> dict[str, Any]:
    from captum.attr import FeatureAblation  # noqa: PLC0415 - heavy

    pairs, batch = both
    answer, wrong = int(pairs.answers), int(pairs.wrong)

    def forward(ids: torch.Tensor) -> torch.Tensor:
        last = hf(ids, logits_to_keep=1).logits[:, -1]
        return last[:, answer] - last[:, wrong]

    def theirs(at_once: int) -> Run:
        start = time.perf_counter()
        ablation = FeatureAblation(forward)
        attributions = ablation.attribute(pairs.clean, torch.zeros_like(pairs.clean), perturbations_per_eval=at_once)
        return _run(start, attributions[0].double())

    def ours() -> Run:
        start = time.perf_counter()
        result = mx.Occlusion()(model, batch)
        return _run(start, torch.tensor(result.data["value"].values[0]))

    peers = {f"Captum, ablation, {n} at once": lambda n=n: theirs(n) for n in (1, *BATCHES)}
    return _compared("occlusion of every token", shape, peers, ours, 5)


def _attention(shape: Shape, hf: Any, model: Any) -> dict[str, Any]:
    tokens = prompts(shape, 128, 10, 16).clean

    def theirs() -> Run:
        start = time.perf_counter()
        patterns = hf(tokens, output_attentions=True, logits_to_keep=1).attentions
        return _run(start, torch.stack([layer[0, :, -1].flatten() for layer in patterns]).flatten())

    def ours() -> Run:
        start = time.perf_counter()
        acts = model.cache(tokens, ["pattern"])
        patterns = [acts["pattern", layer] for layer in range(shape.n_layers)]
        return _run(start, torch.stack([layer[0, :, -1].flatten() for layer in patterns]).flatten())

    return _compared("attention patterns, 16 x 128 tokens", shape, {"output_attentions": theirs}, ours, 5)


def _compared(
    name: str, shape: Shape, peers: dict[str, Callable[[], Run]], ours: Callable[[], Run], repeats: int
) -> dict[str, Any]:
    contenders = {"reference": Reference(shape).run, **peers, "ours": ours}
    ours()  # the engine's self-check and the libraries' imports are not timed
    runs = interleaved(contenders, repeats)
    best = min(peers, key=lambda peer: median(runs[peer]))
    alike = [run for peer in peers for run in runs[peer] if run.values]
    return {
        "sweep": name,
        "contenders": {label: summary(timings) for label, timings in runs.items()},
        "fastest_peer": best,
        "ratio": round(median(runs[best]) / median(runs["ours"]), 2),
        "largest_difference": largest_difference(runs["ours"], alike),
    }


def _run(start: float, values: torch.Tensor) -> Run:
    seconds = time.perf_counter() - start
    return Run(seconds, seconds, {(at,): float(value) for at, value in enumerate(values) if not torch.isnan(value)})


def _truth(name: str, task: str, truth: tuple[str, ...]) -> dict[str, Any]:
    model = (mx.load_classifier if task == "reviews" else mx.load)(name, device="cpu")
    batch = getattr(mx.tasks, task)(model, n=32)
    data = mx.CompareAttributions(truth=truth)(model, batch).data
    columns = ("auroc", "comprehensiveness", "comprehensiveness_gain_low", "sufficiency", "forward_passes")
    methods = [str(method) for method in data["method"].values]
    return {
        "model": name,
        "prompts": len(batch),
        "truth": list(truth),
        "methods": {
            method: {column: round(float(data[column].values[at]), 4) for column in columns}
            for at, method in enumerate(methods)
        },
        "random": {name: float(data[f"{name}_random"]) for name in ("comprehensiveness", "sufficiency")},
    }


if __name__ == "__main__":
    main()
