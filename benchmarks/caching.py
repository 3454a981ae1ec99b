"""Cached activations of all layers: `model.cache` against TransformerLens and Hugging Face, on one thread.

GPT-2-small shape, the same random weights for all, 8 prompts of 256 tokens, ``resid_post`` of all layers. Every
contender runs in processes of its own, in rotation, so that neither memory use nor the load of the machine affects only
one of them. Values are compared with those of TransformerLens. ``--quick`` uses a small shape.
``make bench-caching``.
"""

import argparse
import ctypes
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import mechxai as mx
from benchmarks.floor import forward_flops, matrix_peak
from benchmarks.hooked import hooked_transformer
from benchmarks.machine import child, conditions, kib, one_thread, write
from benchmarks.shapes import GPT2_SMALL, Shape, hugging_face
from benchmarks.timing import digits

NAME = "caching.json"
PROMPTS, WIDTH = 8, 256
ONE, THREE = ("resid_post",), ("resid_post", "z", "mlp_out")
ALLOWED = 1e-5  # largest difference in float32, as a share of the largest value
_CLEAR = Path("/proc/self/clear_refs")
Values = Mapping[str, Tensor]  # site -> [layer, batch, pos, ...]


@dataclass(frozen=True)
class Case:
    """One way to obtain the activations.

    Attributes:
        make: shape -> a function that runs the model and returns its result.
        held: result -> the tensors that it holds.
        values: result -> the values to compare.
        exact: whether the values are float32.
        last_missing: 1 if the last layer cannot be compared.
    """

    make: Callable[[Shape], Callable[[Tensor], Any]]
    held: Callable[[Any], list[Tensor]]
    values: Callable[[Any], Values]
    sites: tuple[str, ...] = ONE
    exact: bool = True
    last_missing: int = 0


def main() -> None:
    """Measures all contenders and writes the table; with ``--case``, measures one contender in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small shape; the result goes to outputs/bench-quick")
    parser.add_argument("--repeats", type=int, default=3, help="rounds")
    parser.add_argument("--case", choices=CASES, help="measure only this case, in this process")
    parser.add_argument("--reference", type=Path, help="file of the reference values; written if missing")
    arguments = parser.parse_args()
    one_thread()
    shape = GPT2_SMALL.quick() if arguments.quick else GPT2_SMALL
    if arguments.case:
        print(json.dumps(measured(CASES[arguments.case], shape, arguments.reference)))
        return
    rows, peak = table(shape, repeats=arguments.repeats, quick=arguments.quick)
    known = conditions("make bench-caching") | {
        "shape": str(shape),
        "prompts": f"{PROMPTS} x {WIDTH} random tokens; activations of all {shape.n_layers} layers",
        "repeats": f"median of {arguments.repeats} rounds over all contenders; one process each, second call timed",
        "memory": "peak resident memory during a third call minus that before it, including the result",
        "hidden_states": "the last layer of Hugging Face is after the final norm and is not compared",
        "difference": "largest difference from TransformerLens run_with_cache, over the largest value of the site",
        "block_gflop": digits(_block_flops(shape) / 1e9),
        "matrix_peak_gflops": peak,
    }
    target = write(NAME, {"conditions": known, "rows": rows}, quick=arguments.quick)
    print(f"written to {target}", file=sys.stderr)
    wrong = [row["case"] for row in rows if CASES[row["case"]].exact and not row["difference"] < ALLOWED]
    if wrong:
        sys.exit(f"These differ from TransformerLens: {', '.join(wrong)}")


# One contender --------------------------------------------------------------------------------------------------------


def measured(case: Case, shape: Shape, reference: Path | None) -> dict[str, float]:
    """Seconds of a first and a second call, MiB of a third, and the difference of its values from the reference."""
    call = case.make(shape)
    tokens = torch.randint(0, shape.d_vocab, (PROMPTS, WIDTH), generator=torch.Generator().manual_seed(1))
    (first, result), (before, _) = _timed(call, tokens), _memory()
    del result
    seconds, result = _timed(call, tokens)
    del result
    before = _memory(clear=True)[0]
    result = call(tokens)
    measurement = {
        "first_call_seconds": digits(first),
        "seconds": digits(seconds),
        "peak_mib": digits((_memory()[1] - before) / 1024),
        "result_mib": digits(sum(_storages(case.held(result)).values()) / 2**20),
    }
    if reference is not None:
        measurement["difference"] = _difference(case.values(result), case, reference)
    return measurement


def _timed(call: Callable[[Tensor], Any], tokens: Tensor) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call(tokens)
    return time.perf_counter() - start, result


def _memory(*, clear: bool = False) -> tuple[int, int]:
    """KiB resident now, and the peak since it was last cleared. Linux only."""
    gc.collect()
    if clear:
        ctypes.CDLL(None).malloc_trim(0)  # free memory that the allocator still holds would mask the next call
        _CLEAR.write_text("5")
    return kib("VmRSS"), kib("VmHWM")


def _storages(held: list[Tensor]) -> dict[int, int]:
    """Bytes of the storages behind tensors, each storage counted once."""
    return {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in held}


def _difference(values: Values, case: Case, reference: Path) -> float:
    if not reference.exists():
        save_file({name: value.contiguous() for name, value in values.items()}, reference)
    largest = 0.0
    with safe_open(reference, framework="pt") as stored:
        for name in case.sites:
            right, ours = stored.get_tensor(name), values[name].float()
            right = right[: len(right) - case.last_missing].view_as(ours)
            largest = max(largest, float((ours - right).abs().max() / right.abs().max()))
    return digits(largest, 2)


# Contenders -----------------------------------------------------------------------------------------------------------


def _lens(shape: Shape) -> Any:
    """The TransformerLens model with the weights of Hugging Face."""
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights  # noqa: PLC0415 - 3.9 only

    model = hooked_transformer(shape)
    model.load_state_dict(convert_gpt2_weights(hugging_face(shape), model.cfg), strict=False)
    return model


def _run_with_cache(*sites: str, logits: bool = True) -> Callable[[Shape], Callable[[Tensor], Any]]:
    """TransformerLens with hooks at these sites or at all sites, with or without its unembedding."""
    hooks = tuple(_ending(name) for name in sites)

    def make(shape: Shape) -> Callable[[Tensor], Any]:
        model = _lens(shape)
        settings = {"names_filter": lambda name: name.endswith(hooks)} if hooks else {}
        settings |= {} if logits else {"stop_at_layer": shape.n_layers}
        return lambda tokens: model.run_with_cache(tokens, **settings)

    return make


def _of_lens(*sites: str) -> dict[str, Any]:
    def values(result: Any) -> Values:
        cache = result[1]
        return {name: torch.stack([cache[key] for key in cache if key.endswith(_ending(name))]) for name in sites}

    return {"held": lambda result: [result[0], *result[1].values()], "values": values}


def _ending(site: str) -> str:
    return mx.Site(site, 0).hook.removeprefix("blocks.0")


def _hidden_states(attention: str, *, logits: bool = True) -> Callable[[Shape], Callable[[Tensor], Any]]:
    """GPT-2 of Hugging Face, with or without its unembedding."""

    def make(shape: Shape) -> Callable[[Tensor], Any]:
        model = hugging_face(shape)
        model.set_attn_implementation(attention)
        whole = model if logits else model.transformer
        return lambda tokens: whole(tokens, output_hidden_states=True, use_cache=False)

    return make


_OF_HUGGING_FACE = {
    "held": lambda result: [*result.hidden_states, *([result.logits] if "logits" in result else [])],
    "values": lambda result: {"resid_post": torch.stack(result.hidden_states[1:-1])},
    "last_missing": 1,
}


def _ours(*sites: str, dtype: str | None = None) -> Callable[[Shape], Callable[[Tensor], Any]]:
    def make(shape: Shape) -> Callable[[Tensor], Any]:
        model = mx.wrap(_lens(shape), name=shape.name)
        return lambda tokens: model.cache(tokens, sites, dtype=dtype)

    return make


def _of_ours(*sites: str) -> dict[str, Any]:
    return {
        "held": lambda acts: list(acts.values.values()),
        "values": lambda acts: {name: acts.stack(name) for name in sites},
    }


BASELINE, FILTERED = "TransformerLens run_with_cache", "TransformerLens run_with_cache, names_filter"
CASES = {
    BASELINE: Case(_run_with_cache(), **_of_lens(*THREE), sites=THREE),
    FILTERED: Case(_run_with_cache(*ONE), **_of_lens(*ONE)),
    "TransformerLens run_with_cache, names_filter, stop_at_layer": Case(
        _run_with_cache(*ONE, logits=False), **_of_lens(*ONE)
    ),
    "Hugging Face output_hidden_states, eager": Case(_hidden_states("eager"), **_OF_HUGGING_FACE),
    "Hugging Face output_hidden_states, sdpa": Case(_hidden_states("sdpa"), **_OF_HUGGING_FACE),
    "Hugging Face output_hidden_states, sdpa, no logits": Case(
        _hidden_states("sdpa", logits=False), **_OF_HUGGING_FACE
    ),
    "model.cache": Case(_ours(*ONE), **_of_ours(*ONE)),
    "model.cache, dtype bfloat16": Case(_ours(*ONE, dtype="bfloat16"), **_of_ours(*ONE), exact=False),
    "model.cache of resid_post, z, mlp_out": Case(_ours(*THREE), **_of_ours(*THREE), sites=THREE),
}


# The table ------------------------------------------------------------------------------------------------------------


def table(shape: Shape, *, repeats: int, quick: bool) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """One row per contender, and the peak matrix-product rate before and after."""
    peak = matrix_peak(0.02 if quick else 0.3)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeats):
            for name in CASES:
                arguments = [f"--case={name}", *(["--quick"] if quick else [])]
                arguments += [f"--reference={folder}/values.safetensors"] if number == 0 else []
                measurement = child("benchmarks.caching", *arguments)
                if "left_out" in measurement:
                    raise RuntimeError(f"{name}: {measurement['left_out']}")
                runs[name].append(measurement)
    peak = {name: max(rate, later) for (name, rate), later in zip(peak.items(), matrix_peak(0.3).values(), strict=True)}
    rows = [_row(name, measurement, shape) for name, measurement in runs.items()]
    for row in rows:
        for against, key in ((BASELINE, "run_with_cache"), (FILTERED, "names_filter")):
            other = next(candidate for candidate in rows if candidate["case"] == against)
            row[f"times_faster_than_{key}"] = digits(other["seconds"] / row["seconds"], 3)
            row[f"memory_over_{key}"] = digits(row["peak_mib"] / max(other["peak_mib"], 1e-9), 3)
        _show(row)
    return rows, peak


def _row(name: str, runs: list[dict[str, float]], shape: Shape) -> dict[str, Any]:
    middle = {key: statistics.median(run[key] for run in runs) for key in ("seconds", "first_call_seconds", "peak_mib")}
    seconds = [run["seconds"] for run in runs]
    return {
        "case": name,
        **middle,
        "fastest": min(seconds),
        "slowest": max(seconds),
        "tokens_per_second": digits(PROMPTS * WIDTH / middle["seconds"]),
        "block_gflops": digits(_block_flops(shape) / middle["seconds"] / 1e9, 3),
        "result_mib": runs[0]["result_mib"],
        "difference": runs[0]["difference"],
    }


def _block_flops(shape: Shape) -> float:
    """Floating-point operations of products and attention in all blocks; attention counts visible keys only."""
    return PROMPTS * (forward_flops(shape, WIDTH) - 2.0 * WIDTH * shape.d_model * shape.d_vocab)


def _show(row: Mapping[str, Any]) -> None:
    print(
        f"{row['case']:62} {row['seconds']:7.3f} s {row['tokens_per_second']:7.0f} tokens/s "
        f"{row['times_faster_than_run_with_cache']:5.2f}x / {row['times_faster_than_names_filter']:5.2f}x "
        f"{row['peak_mib']:7.0f} MiB, result {row['result_mib']:6.0f} MiB, off by {row['difference']:.0e}",
        flush=True,
    )


if __name__ == "__main__":
    main()
