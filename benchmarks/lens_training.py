"""Tuned-lens training: ours against the ``tuned-lens`` package, in alternating processes, on one thread.

GPT-2-small shape, the same random weights and tokens for both, the training settings of the package (SGD with Nesterov
momentum, learning rate 0.1 falling to 0, gradient clipped at 1). The environment of the package is
``.venv-tuned-lens``, installed with ``pip install tuned-lens transformers numpy``; the loop follows its training
script. ``make bench-lens``.
"""

import argparse
import json
import statistics
import sys
import time
import warnings
from typing import Any

import torch

from benchmarks.machine import Reference, child, conditions, kib, one_thread, write
from benchmarks.shapes import GPT2_SMALL, Shape, hugging_face, one_token
from benchmarks.timing import digits

NAME = "lens_training.json"
STEPS, SEQUENCES, LENGTH = 3, 4, 64
TURNS = 3
ALLOWED = 1e-3  # relative difference of the losses
CONDITIONS = {
    "tokens": f"{STEPS} steps of {SEQUENCES} x {LENGTH} random tokens, 12 layers; the first step is not timed",
    "tuned-lens": "its TunedLens and Unembed, one layer after the other: forward, KL, backward",
    "ours": "mx.TunedLens.train",
    "repeats": f"median of {TURNS} processes each, in alternation",
}


def main() -> None:
    """Runs both in alternation and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small shape; committed results are not touched")
    parser.add_argument(
        "--here", choices=("ours", "theirs"), help="measure this contender in this process and print JSON"
    )
    arguments = parser.parse_args()
    shape = GPT2_SMALL.quick() if arguments.quick else GPT2_SMALL
    if arguments.here:
        print(json.dumps(_measured(shape, arguments.here)))
        return
    quick = ["--quick"] if arguments.quick else []
    processes: dict[str, list[dict[str, Any]]] = {"theirs": [], "ours": []}
    for _ in range(TURNS):
        for name, venv in (("theirs", ".venv-tuned-lens"), ("ours", ".venv")):
            measurement = child("benchmarks.lens_training", f"--here={name}", *quick, venv=venv)
            if "left_out" in measurement:
                sys.exit(f"{name}: {measurement['left_out']}")
            processes[name].append(measurement)
    contenders = {
        name: {
            "tokens_per_second": digits(statistics.median(measurement["tokens_per_second"] for measurement in runs)),
            "peak_mib": digits(statistics.median(measurement["peak_mib"] for measurement in runs)),
            "reference": digits(statistics.median(measurement["reference"] for measurement in runs)),
            "losses": runs[0]["losses"],
            "versions": runs[0]["versions"],
        }
        for name, runs in processes.items()
    }
    pairs = zip(contenders["ours"]["losses"], contenders["theirs"]["losses"], strict=True)
    difference = max(abs(ours - theirs) / theirs for ours, theirs in pairs)
    row = {
        "sweep": "tuned lens training",
        "contenders": contenders,
        "ratio": digits(contenders["ours"]["tokens_per_second"] / contenders["theirs"]["tokens_per_second"], 3),
        "largest_relative_difference": difference,
    }
    known = conditions("make bench-lens") | {"shape": str(shape)} | CONDITIONS
    print(f"written to {write(NAME, {'conditions': known, 'rows': [row]}, quick=arguments.quick)}", file=sys.stderr)
    print(json.dumps(row, indent=1))
    if not difference < ALLOWED:
        sys.exit(f"losses differ by {difference:.0e}, more than {ALLOWED:.0e}")


def _measured(shape: Shape, who: str) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    one_thread()
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(0, shape.d_vocab, (STEPS * SEQUENCES, LENGTH), generator=generator)
    reference = Reference(shape)
    reference.run()
    timed = reference.run().seconds
    torch.set_grad_enabled(True)
    before = kib("VmRSS")
    losses, times = (_theirs if who == "theirs" else _ours)(shape, tokens)
    return {
        "tokens_per_second": (STEPS - 1) * SEQUENCES * LENGTH / sum(times[1:]),
        "losses": losses,
        "reference": timed,
        "peak_mib": (kib("VmHWM") - before) / 1024,
        "versions": conditions("")["versions"],
    }


def _ours(shape: Shape, tokens: torch.Tensor) -> tuple[list[float], list[float]]:
    from transformer_lens.model_bridge import TransformerBridge  # noqa: PLC0415 - not in the package's environment

    import mechxai as mx  # noqa: PLC0415

    inner = TransformerBridge.boot_transformers("local", hf_model=hugging_face(shape), tokenizer=one_token()).eval()
    model = mx.wrap(inner, name=shape.name)
    started, times = time.perf_counter(), []

    def log(_: object) -> None:
        nonlocal started
        now = time.perf_counter()
        times.append(now - started)
        started = now

    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0)).argsort()
    lens = mx.TunedLens.train(model, tokens[order], steps=STEPS, tokens_per_step=SEQUENCES * LENGTH, log=log)
    if lens.losses is None:
        raise RuntimeError("The trained lens has no losses")
    return [float(loss) for loss in lens.losses.mean(1)], times


def _theirs(shape: Shape, tokens: torch.Tensor) -> tuple[list[float], list[float]]:
    from tuned_lens.nn.lenses import TunedLens  # noqa: PLC0415 - an extra environment

    model = hugging_face(shape).eval()
    model.requires_grad_(requires_grad=False)
    lens = TunedLens.from_model(model)
    optimizer = torch.optim.SGD(
        [parameter for parameter in lens.parameters() if parameter.requires_grad],
        lr=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=1e-3,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / STEPS)
    losses, times = [], []
    for rows in tokens.split(SEQUENCES):
        started = time.perf_counter()
        with torch.no_grad():
            output = model(rows, output_hidden_states=True)
        target = output.logits.log_softmax(-1)
        total = 0.0
        for layer, stream in enumerate(output.hidden_states[:-1]):
            log_probs = lens(stream, layer).log_softmax(-1)
            loss = (target.exp() * (target - log_probs)).sum(-1).mean()
            loss.backward()
            total += float(loss)
        torch.nn.utils.clip_grad_norm_(lens.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(total / shape.n_layers)
        times.append(time.perf_counter() - started)
    return losses, times


if __name__ == "__main__":
    main()
