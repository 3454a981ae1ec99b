"""Patching sweeps against TransformerLens' own, one process, one thread, interleaved: ``make bench``.

GPT-2-small shape, random weights, 16 tokens, clean and corrupted differ at position 10 only, one pair.
TransformerLens' own function is timed on a random sample of its cells and scaled to all (it does the same work
for each); ours run whole. Both give the same values: the largest difference over the sample is printed.
"""

import json
import platform
import random
import statistics
import sys
import time
from importlib import metadata
from pathlib import Path

import pandas as pd
import torch
import transformer_lens.patching as tl_patching
from transformer_lens import HookedTransformer, HookedTransformerConfig

import mechxai as mx

REPEATS = 3
SAMPLE = 12
SWEEPS = {
    "resid_pre, layer x pos": ("resid_pre", ("layer", "pos"), tl_patching.layer_pos_patch_setter),
    "attn_out, layer x pos": ("attn_out", ("layer", "pos"), tl_patching.layer_pos_patch_setter),
    "mlp_out, layer x pos": ("mlp_out", ("layer", "pos"), tl_patching.layer_pos_patch_setter),
    "z, layer x head": ("z", ("layer", "head"), tl_patching.layer_head_vector_patch_setter),
}


def small_model(seed: int = 0) -> HookedTransformer:
    """GPT-2 small's shape with random weights."""
    config = HookedTransformerConfig(
        n_layers=12,
        d_model=768,
        n_ctx=1024,
        d_head=64,
        n_heads=12,
        d_mlp=3072,
        d_vocab=50257,
        act_fn="gelu_new",
        normalization_type="LNPre",
        seed=seed,
    )
    model = HookedTransformer(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def pair(width: int = 16, first: int = 10) -> mx.ContrastBatch:
    """One pair of random prompts that differ at one position."""
    clean = torch.randint(0, 50257, (1, width), generator=torch.Generator().manual_seed(1))
    corrupted = clean.clone()
    corrupted[0, first] = (clean[0, first] + 77) % 50257
    return mx.ContrastBatch.from_tokens(clean, corrupted, torch.tensor([11]), torch.tensor([13]))


def transformer_lens_seconds(
    inner: HookedTransformer, batch: mx.ContrastBatch, site: str, over: tuple[str, ...], setter
) -> tuple[float, dict]:
    """Seconds for the whole sweep (scaled from a sample), and the sampled values by cell."""
    _, cache = inner.run_with_cache(batch.clean)
    sizes = {"layer": 12, "pos": batch.n_pos, "head": 12}
    cells = [(layer, other) for layer in range(sizes["layer"]) for other in range(sizes[over[1]])]
    sample = random.Random(0).sample(cells, SAMPLE)  # a stride would hit one position only
    index = pd.DataFrame(sample, columns=list(over))
    start = time.perf_counter()
    values = tl_patching.generic_activation_patch(
        inner,
        batch.corrupted,
        cache,
        lambda logits: logits[0, -1, 11] - logits[0, -1, 13],
        setter,
        site,
        index_df=index,
    )
    seconds = (time.perf_counter() - start) * len(cells) / len(sample)
    return seconds, dict(zip(sample, values.tolist(), strict=True))


def main() -> None:
    """Prints and writes the table."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    tl_patching.tqdm = lambda rows, **_: rows
    inner = small_model()
    model = mx.wrap(inner, name="gpt2-small shape, random")
    batch = pair()
    rows = []
    for name, (site, over, setter) in SWEEPS.items():
        method = mx.ActivationPatching(site, over)
        method(model, batch)  # the self-check is done once per model and site
        times: dict[str, list[float]] = {"transformer_lens": [], "wave": [], "hooked": []}
        error = 0.0
        for _ in range(REPEATS):
            seconds, reference = transformer_lens_seconds(inner, batch, site, over, setter)
            times["transformer_lens"].append(seconds)
            for engine in ("wave", "hooked"):
                start = time.perf_counter()
                result = method(model, batch, execution=mx.Execution(engine=engine))
                times[engine].append(time.perf_counter() - start)
                ours = result.data["value"].values
                error = max(error, *(abs(float(ours[cell]) - value) for cell, value in reference.items()))
        medians = {key: statistics.median(values) for key, values in times.items()}
        row = {
            "sweep": name,
            "cells": int(result.data["value"].size),
            "TransformerLens s": round(medians["transformer_lens"], 1),
            "level 0 s": round(medians["hooked"], 2),
            "level 1 s": round(medians["wave"], 2),
            "level 0 ratio": round(medians["transformer_lens"] / medians["hooked"], 1),
            "level 1 ratio": round(medians["transformer_lens"] / medians["wave"], 1),
            "largest difference": f"{error:.0e}",
        }
        rows.append(row)
        print(row, flush=True)
    conditions = {
        "command": "make bench",
        "shape": "12 layers, d_model 768, 12 heads, vocabulary 50257, random weights, float32",
        "prompts": "1 pair, 16 tokens, difference at position 10",
        "threads": 1,
        "repeats": f"median of {REPEATS}, interleaved",
        "machine": f"{platform.machine()}, {cpu_name()}",
        "versions": {name: metadata.version(name) for name in ("torch", "transformer-lens", "transformers")}
        | {"python": platform.python_version()},
    }
    target = Path(__file__).parent / "results" / "patching.json"
    target.write_text(json.dumps({"conditions": conditions, "rows": rows}, indent=2) + "\n")
    print(f"written to {target.relative_to(Path(__file__).parents[1])}", file=sys.stderr)


def cpu_name() -> str:
    """The processor's name, where the system tells."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
